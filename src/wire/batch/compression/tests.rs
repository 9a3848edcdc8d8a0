//! Streams of every scheme: what goes in comes out in bounded steps, and what is hostile does no harm.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::decompressor::STEP_COMPRESSED_BYTES;
use super::*;
use crate::batch::BatchError;

const COMPRESSIONS: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn in_one_go(compression: Compression, records: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(compression, records.len(), BytesMut::new()).expect("a way");
    compressor.write(records).expect("in memory");
    compressor.finish().expect("in memory").to_vec()
}

fn in_steps(compression: Compression, records: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(compression, records.len(), BytesMut::new()).expect("a way");
    let mut records = Bytes::copy_from_slice(records);
    while !records.is_empty() {
        compressor.step(&mut records).expect("in memory");
    }
    compressor.finish().expect("in memory").to_vec()
}

/// What comes out, and in how many steps.
fn decompress(compression: Compression, compressed: &[u8], bytes_max: usize) -> Result<(Vec<u8>, usize), BatchError> {
    let mut scratch = Scratch::new(DecompressLimits { decompressed_bytes_max: bytes_max });
    let mut decompressor = scratch.begin(compression, compressed)?;
    let mut steps = 1;
    while !decompressor.step()? {
        steps += 1;
    }
    Ok((decompressor.finish()?.to_vec(), steps))
}

/// Text that compresses somewhat.
fn text(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{} ", state >> 22)
    });
    words.flat_map(String::into_bytes).take(bytes).collect()
}

/// Bytes with runs and repetitions, as records have them.
fn any_content() -> impl Strategy<Value = Vec<u8>> {
    let part = (proptest::collection::vec(any::<u8>(), 0..40), 0..400_usize);
    proptest::collection::vec(part, 0..30)
        .prop_map(|parts| parts.into_iter().flat_map(|(bytes, times)| bytes.repeat(times)).collect())
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(compression in proptest::sample::select(&COMPRESSIONS[..]), content in any_content()) {
        for compressed in [in_one_go(compression, &content), in_steps(compression, &content)] {
            let (out, _) = decompress(compression, &compressed, content.len()).expect("sound");
            prop_assert!(out == content);
        }
    }

    #[test]
    fn damaged_streams_give_something_within_the_limit_or_an_error(
        compression in proptest::sample::select(&COMPRESSIONS[..]),
        content in any_content(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut compressed = in_one_go(compression, &content);
        for (index, byte) in damage {
            let index = index.index(compressed.len());
            compressed[index] = byte;
        }
        compressed.truncate(cut.map_or(compressed.len(), |cut| cut.index(compressed.len())));
        if let Ok((out, _)) = decompress(compression, &compressed, content.len()) {
            prop_assert!(out.len() <= content.len());
        }
    }

    #[test]
    fn gzip_finds_every_flipped_bit_that_changes_anything(content in any_content(), at: prop::sample::Index, bit in 0_u32..8) {
        // Ten bytes in front say when and where it was made, and are not covered.
        let mut compressed = in_one_go(Compression::Gzip, &content);
        let at = 10 + at.index(compressed.len() - 10);
        compressed[at] ^= 1 << bit;
        // Where a byte has bits that nobody looks at, what comes out is still the same.
        let out = decompress(Compression::Gzip, &compressed, 2 * content.len());
        prop_assert!(out.is_err() || out.is_ok_and(|(out, _)| out == content));
    }

    #[test]
    fn a_bare_snappy_block_is_taken_apart_as_others_do(
        content in any_content(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut block = snap::raw::Encoder::new().compress_vec(&content).expect("short");
        for (index, byte) in damage {
            let index = index.index(block.len());
            block[index] = byte;
        }
        let others = snap::raw::decompress_len(&block).ok().filter(|bytes| *bytes <= 1 << 20);
        let others = others.and_then(|_| snap::raw::Decoder::new().decompress_vec(&block).ok());
        let ours = decompress(Compression::Snappy, &block, 1 << 20).ok().map(|(out, _)| out);
        prop_assert!(ours == others);
    }

    #[test]
    fn any_bytes_are_a_stream_or_an_error(
        compression in proptest::sample::select(&COMPRESSIONS[..]), bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = decompress(compression, &bytes, 1 << 20);
    }
}

#[test]
fn steps_are_bounded() {
    let content = text(3 << 20);
    for compression in COMPRESSIONS {
        let compressed = in_one_go(compression, &content);
        let mut scratch = Scratch::default();
        let mut decompressor = scratch.begin(compression, &compressed).expect("a decoder");
        let mut before = 0;
        while !decompressor.step().expect("sound") {
            let now = decompressor.decompressed_bytes();
            // A copy of snappy's is done whole, and takes 64 bytes at most.
            assert!(now - before <= STEP_BYTES + 64, "{compression}: {before} to {now}");
            before = now;
        }
        assert!(decompressor.finish().expect("whole") == content, "{compression}");
    }
}

#[test]
fn streams_that_give_nothing_are_walked_in_steps_too() {
    const BLOCKS: usize = 100_000;
    let gzip_head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let zstd_head = [0x28, 0xb5, 0x2f, 0xfd, 0, 0];
    let lz4_head = in_one_go(Compression::Lz4, b"");
    let snappy_head = in_one_go(Compression::Snappy, b"");
    for (compression, head, block, end, step_bytes) in [
        (
            Compression::Gzip,
            &gzip_head[..],
            &[0, 0, 0, 0xff, 0xff][..],
            &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            STEP_COMPRESSED_BYTES,
        ),
        (Compression::Snappy, &snappy_head, &[0, 0, 0, 1, 0], &[], 2 * 5 * STEP_BYTES),
        (Compression::Lz4, &lz4_head[..7], &[1, 0, 0, 0, 0], &[0, 0, 0, 0], 16 << 10),
        (Compression::Zstd, &zstd_head, &[0, 0, 0], &[1, 0, 0], STEP_COMPRESSED_BYTES),
    ] {
        let stream = [head, &block.repeat(BLOCKS), end].concat();
        let (out, steps) = decompress(compression, &stream, 1 << 20).expect("sound, if strange");
        assert_eq!(out.len(), 0, "{compression}");
        assert!(steps >= stream.len() / step_bytes, "{compression}: {} bytes in {steps} steps", stream.len());
    }
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    // A frame without content that asks for a window of two to the power of that.
    let frame = |window_log: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3, 1, 0, 0];
    for (bytes_max, window_log_max) in [(1 << 10, 23), (4 << 20, 23), (8 << 20, 24), (64 << 20, 27), (1 << 40, 27)] {
        assert_eq!(decompress(Compression::Zstd, &frame(window_log_max), bytes_max), Ok((Vec::new(), 1)));
        let error = decompress(Compression::Zstd, &frame(window_log_max + 1), bytes_max).expect_err("too large");
        assert!(error.to_string().contains("memory"), "{error}");
    }
}

#[test]
fn streams_of_other_writers_are_read() {
    let content = text(300_000);
    // Levels whose window is as large as the format's readers must take, without saying how much there is.
    let mut zstd = ::zstd::stream::Encoder::new(Vec::new(), 19).expect("in memory");
    zstd.write_all(&content).expect("in memory");
    let zstd = zstd.finish().expect("in memory");
    let snappy = snap::raw::Encoder::new().compress_vec(&content).expect("short");
    let mut lz4 = ::lz4::EncoderBuilder::new()
        .block_size(::lz4::BlockSize::Max4MB)
        .checksum(::lz4::ContentChecksum::ChecksumEnabled)
        .build(Vec::new())
        .expect("in memory");
    lz4.write_all(&content).expect("in memory");
    let lz4 = lz4.finish().0;
    let mut gzip = flate2::GzBuilder::new()
        .filename("name")
        .comment("comment")
        .extra([1, 2])
        .write(Vec::new(), flate2::Compression::none());
    gzip.write_all(&content).expect("in memory");
    let gzip = gzip.finish().expect("in memory");
    for (compression, stream) in COMPRESSIONS.into_iter().zip([gzip, snappy, lz4, zstd]) {
        let (out, _) = decompress(compression, &stream, 4 << 20).expect("sound");
        assert!(out == content, "{compression}");
    }
}

#[test]
fn a_hostile_snappy_block_is_refused() {
    let refused = |block: &[u8]| match decompress(Compression::Snappy, block, 1 << 20) {
        Err(BatchError::Decompress { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refused(&[]).contains("ends early"));
    assert!(refused(&[0x80, 0x80]).contains("ends early"), "within its length");
    assert!(refused(&[0xff; 6]).contains("longer than it says"), "a length of more than 32 bits");
    assert!(refused(&[4, 0b1100, b'a']).contains("ends early"), "within a literal");
    assert!(refused(&[2, 0b1100, b'a', b'b', b'c', b'd']).contains("longer than it says"), "a literal");
    assert!(refused(&[1, 0, b'a', 0]).contains("goes on"));
    assert!(refused(&[5, 0, b'a', 1, 0]).contains("before the block"), "a copy from where it is");
    assert!(refused(&[5, 0, b'a', 1, 2]).contains("before the block"));
    assert!(refused(&[2, 0, b'a', 1, 1]).contains("longer than it says"), "a copy");
    assert!(refused(&[5, 0, b'a', 2, 1]).contains("ends early"), "within a copy");
    let read = |block: &[u8]| decompress(Compression::Snappy, block, 1 << 20).map(|(out, _)| out);
    assert_eq!(read(&[5, 0, b'a', 1, 1]), Ok(b"aaaaa".to_vec()));

    let framed = |blocks: &[&[u8]]| [&in_one_go(Compression::Snappy, b"")[..], &blocks.concat()].concat();
    let one: &[u8] = &[0, 0, 0, 3, 1, 0, b'a'];
    assert_eq!(read(&framed(&[one, one])), Ok(b"aa".to_vec()));
    assert!(refused(&framed(&[one, &[0, 0, 0]])).contains("ends early"), "within a length");
    assert!(refused(&framed(&[&[0xff; 4], one])).contains("ends early"), "a block of 4 GiB");
    assert!(refused(&framed(&[one, &[0, 0, 0, 3, 4, 1, 1]])).contains("before the block"), "a copy from another block");
}
