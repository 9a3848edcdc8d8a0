use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use ringmq_wire::{Offset, PartitionIndex, ShardIndex, TopicId};

use super::*;
use crate::block::EntryHeader;

const UNIT: usize = UNIT_BYTES;

fn config(ring_units: u64, block_units: usize) -> JournalConfig {
    let config = JournalConfig {
        ring_bytes: ring_units * UNIT as u64,
        block_bytes_max: block_units * UNIT,
        blocks_in_flight_max: 2,
        idle: Duration::from_millis(5),
    };
    config.validate().expect("valid");
    config
}

fn ledger(config: &JournalConfig) -> Ledger<u64> {
    let ring = RingName { shard: ShardIndex::new(0), number: RingNumber(1), flushing: Flushing::Each };
    let mut ledger = Ledger::new(ring, config, BlockNumber::FIRST);
    let first = launch(&mut ledger, &[], None);
    ledger.land(first.number);
    assert_eq!(ledger.acknowledge(), Some((BlockNumber::FIRST, None)));
    ledger
}

fn launch(ledger: &mut Ledger<u64>, entries: &[Entry<'_>], cargo: Option<u64>) -> BlockHeader {
    let header = ledger.header(entries.iter().map(Entry::encoded_bytes).sum());
    ledger.launch(header, 0, entries, cargo);
    header
}

/// Entries of that many logs, with payloads of that length.
fn entries(payload: &[u8], logs: u32) -> Vec<Entry<'_>> {
    let header = |partition| EntryHeader {
        topic_id: TopicId::METADATA,
        partition: PartitionIndex::new(partition),
        log_number: 1,
        generation: 1,
        base_offset: Offset::ZERO,
        next_offset: Offset::new(1),
        frames_end: Offset::ZERO,
    };
    (0..logs).map(|log| Entry { header: header(log), payload }).collect()
}

#[test]
fn blocks_are_acknowledged_in_order_whatever_lands_first() {
    let mut ledger = ledger(&config(64, 2));
    let blocks = [1, 2].map(|cargo| launch(&mut ledger, &entries(b"x", 1), Some(cargo)));
    assert_eq!(ledger.room(), None, "two are in flight");
    ledger.land(blocks[1].number);
    assert_eq!(ledger.acknowledge(), None);
    assert_eq!(ledger.room(), None, "what has landed and is not acknowledged counts");
    ledger.land(blocks[0].number);
    assert_eq!(ledger.acknowledge(), Some((blocks[0].number, Some(1))));
    assert_eq!(ledger.durable_through(), blocks[0].end());
    assert_eq!(ledger.acknowledge(), Some((blocks[1].number, Some(2))));
    assert_eq!(ledger.acknowledge(), None);
}

#[test]
fn the_floor_never_falls_and_never_passes_the_next_block() {
    let mut ledger = ledger(&config(64, 2));
    let block = launch(&mut ledger, &entries(b"x", 1), Some(1));
    ledger.free_below(block.number);
    ledger.free_below(BlockNumber::FIRST);
    assert_eq!(ledger.floor(), block.number);
    ledger.free_below(block.end().plus(10));
    assert_eq!(ledger.floor(), block.end());
}

#[test]
fn a_block_says_what_was_durable_and_free_when_it_was_built() {
    let mut ledger = ledger(&config(64, 2));
    let first = launch(&mut ledger, &entries(b"x", 1), Some(1));
    let second = launch(&mut ledger, &entries(b"x", 1), Some(2));
    assert_eq!((second.previous, second.durable_through), (first.number, first.number));
    ledger.land(first.number);
    ledger.acknowledge();
    ledger.free_below(second.number);
    let third = launch(&mut ledger, &[], None);
    assert_eq!((third.previous, third.durable_through, third.floor), (second.number, second.number, second.number));
    assert_eq!(ledger.used_units(), third.end().units_since(BlockNumber::FIRST), "the floor counts once it is durable");
}

/// What the caller and the device may do.
#[derive(Clone, Debug)]
enum Step {
    Write { fill: u8, logs: u32 },
    Land { second: bool },
    Free { oldest: u8 },
    CloseIdle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<u8>(), 1_u32..200).prop_map(|(fill, logs)| Step::Write { fill, logs }),
        5 => any::<bool>().prop_map(|second| Step::Land { second }),
        2 => (0_u8..6).prop_map(|oldest| Step::Free { oldest }),
        1 => Just(Step::CloseIdle),
    ];
    prop::collection::vec(step, 0..400)
}

/// A device that remembers which block each unit holds.
struct Device {
    units: Vec<Option<BlockHeader>>,
    /// Blocks that are written and not known to be free, with whether they have entries.
    needed: BTreeMap<BlockNumber, bool>,
    expected: u64,
}

impl Device {
    /// The block is on its way: from now on nothing can be said of what stood there.
    fn write(&mut self, ledger: &Ledger<u64>, header: BlockHeader, has_entries: bool) {
        let start = usize::try_from(ledger.position(header.number)).expect("small") / UNIT;
        let place = &mut self.units[start..start + header.units as usize];
        for old in place.iter().flatten() {
            assert!(old.number < ledger.durable_floor, "block {} is needed and written over", old.number);
        }
        place.fill(Some(header));
        self.needed.insert(header.number, has_entries);
    }
}

fn acknowledge_all(ledger: &mut Ledger<u64>, device: &mut Device) {
    while let Some((_, cargo)) = ledger.acknowledge() {
        if let Some(cargo) = cargo {
            assert_eq!(cargo, device.expected, "in order");
            device.expected += 1;
        }
    }
    raise(ledger, device);
}

fn raise(ledger: &mut Ledger<u64>, device: &mut Device) {
    if ledger.must_raise_floor() {
        let header = ledger.header(0);
        assert!(u64::from(header.units) <= ledger.free_units(), "space is kept for it");
        device.write(ledger, header, false);
        ledger.launch(header, 0, &[], None);
    }
}

fn land_all(ledger: &mut Ledger<u64>, device: &mut Device) {
    while ledger.is_in_flight() {
        let numbers: Vec<_> = ledger.in_flight.iter().map(|block| block.header.number).collect();
        numbers.into_iter().for_each(|number| ledger.land(number));
        acknowledge_all(ledger, device);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Rule 4: nothing needed is written over, raising the floor always has space, and freed space comes back.
    #[test]
    fn the_ring_never_writes_over_what_is_needed_and_never_gets_stuck(
        block_units in 1_usize..5,
        more_units in 0_u64..9,
        steps in steps(),
    ) {
        let config = config(8 * block_units as u64 + more_units, block_units);
        let mut ledger = ledger(&config);
        let units = usize::try_from(config.geometry().units).expect("small");
        let mut device = Device { units: vec![None; units], needed: BTreeMap::new(), expected: 0 };
        let mut cargo = 0;
        for step in steps {
            match step {
                Step::Write { fill, logs } => {
                    let Some(room) = ledger.room() else { continue };
                    let logs = logs.min(u32::try_from(room / 64).expect("small"));
                    if logs == 0 {
                        continue;
                    }
                    let payload = vec![0; (room / logs as usize - 64) * usize::from(fill) / 255];
                    let entries = entries(&payload, logs);
                    let header = ledger.header(entries.iter().map(Entry::encoded_bytes).sum());
                    prop_assert!(u64::from(header.units) <= ledger.spare_units());
                    device.write(&ledger, header, true);
                    ledger.launch(header, 0, &entries, Some(cargo));
                    cargo += 1;
                }
                Step::Land { second } => {
                    let block = ledger.in_flight.get(usize::from(second)).or(ledger.in_flight.front());
                    let number = block.map(|block| block.header.number);
                    number.into_iter().for_each(|number| ledger.land(number));
                    acknowledge_all(&mut ledger, &mut device);
                }
                Step::Free { oldest } => {
                    let keep = device.needed.iter().filter(|(_, has_entries)| **has_entries).nth(oldest.into());
                    let below = keep.map_or(ledger.next(), |(number, _)| *number);
                    device.needed = device.needed.split_off(&below);
                    ledger.free_below(below);
                    raise(&mut ledger, &mut device);
                }
                Step::CloseIdle if ledger.may_prove_newest() => {
                    let header = ledger.header(0);
                    device.write(&ledger, header, false);
                    ledger.launch(header, 0, &[], None);
                }
                Step::CloseIdle => {}
            }
        }
        // However full it is: once the caller needs nothing any more, the longest entry fits.
        land_all(&mut ledger, &mut device);
        ledger.free_below(ledger.next());
        raise(&mut ledger, &mut device);
        land_all(&mut ledger, &mut device);
        prop_assert!(ledger.room().is_some_and(|room| room >= config.entry_bytes_max()), "{:?}", ledger);
        prop_assert_eq!(device.expected, cargo);
    }

    /// A full ring whose caller frees one block at a time goes on for ever.
    #[test]
    fn a_full_ring_goes_on_block_by_block(block_units in 1_usize..5, more_units in 0_u64..9, logs in 1_u32..60) {
        let config = config(8 * block_units as u64 + more_units, block_units);
        let mut ledger = ledger(&config);
        let units = usize::try_from(config.geometry().units).expect("small");
        let mut device = Device { units: vec![None; units], needed: BTreeMap::new(), expected: 0 };
        let payload_bytes = (config.entry_bytes_max() / logs as usize).saturating_sub(64);
        let payload = vec![0; payload_bytes];
        let entries = entries(&payload, logs);
        let entry_bytes: usize = entries.iter().map(Entry::encoded_bytes).sum();
        prop_assume!(entry_bytes <= config.entry_bytes_max());
        for cargo in 0..300 {
            let mut freed = 0;
            while ledger.room().is_none_or(|room| room < entry_bytes) {
                land_all(&mut ledger, &mut device);
                if ledger.room().is_some_and(|room| room >= entry_bytes) {
                    break;
                }
                device.needed.retain(|_, has_entries| *has_entries);
                device.needed.pop_first();
                let below = device.needed.first_key_value().map_or(ledger.next(), |(number, _)| *number);
                ledger.free_below(below);
                raise(&mut ledger, &mut device);
                freed += 1;
                prop_assert!(freed < 100, "stuck: {ledger:?}");
            }
            let header = ledger.header(entry_bytes);
            device.write(&ledger, header, true);
            ledger.launch(header, 0, &entries, Some(cargo));
        }
    }
}
