//! The lines of a file into a topic, and back.

use bytes::Bytes;
use ringmq_client::{Client, Error, Header, PartitionIndex, Record, SubscribeOptions, Until};

/// Lines that go into one batch, and bytes of them: a batch stays below what a topic takes by default.
const BATCH_LINES_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 256 << 10;

/// The header that says which line a record is: order holds inside a partition, not across them.
const LINE: &str = "line";

/// The file, cut at its newlines; joined by newlines the lines are the file again.
pub(super) fn lines(file: &Bytes) -> Vec<Bytes> {
    file.split(|byte| *byte == b'\n').map(|line| file.slice_ref(line)).collect()
}

/// Sends batches of lines to the partitions in turn; each is on disk when this goes on. Gives the number of batches.
pub(super) async fn send(client: &Client, topic: &str, partitions: u32, lines: &[Bytes]) -> Result<u64, Error> {
    let producer = client.producer();
    // At least as many batches as let every partition have some.
    let batch_lines = lines.len().div_ceil(4 * partitions as usize).clamp(1, BATCH_LINES_MAX);
    let mut rest = lines.iter().enumerate().peekable();
    let mut batches = 0;
    for partition in (0..partitions).cycle() {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < batch_lines
            && let Some((number, line)) =
                rest.next_if(|(_, line)| batch.is_empty() || bytes + line.len() <= BATCH_BYTES_MAX)
        {
            bytes += line.len();
            batch.push(Record::value(line.clone()).with_header(LINE, number.to_string()));
        }
        if batch.is_empty() {
            break;
        }
        producer.send_batch_to(topic, PartitionIndex::new(partition), batch).await?;
        batches += 1;
    }
    Ok(batches)
}

/// What came back: the lines by their numbers, and how many records.
pub(super) struct Received {
    /// A line that did not come, or is no line, is `None`.
    pub lines: Vec<Option<Bytes>>,
    /// All records, those as well that are twice there or have no number.
    pub records: u64,
}

/// Reads the topic from its start to its end.
pub(super) async fn receive(client: &Client, topic: &str, expected: usize) -> Result<Received, Error> {
    let options = SubscribeOptions { until: Until::CurrentEnd, ..SubscribeOptions::default() };
    let mut stream = client.consumer().stream(topic, options).await?;
    let mut received = Received { lines: vec![None; expected], records: 0 };
    while let Some(record) = stream.next().await? {
        received.records += 1;
        let number = line_number(&record.headers);
        if let Some(slot) = number.and_then(|number| received.lines.get_mut(number)) {
            *slot = record.value;
        }
    }
    Ok(received)
}

fn line_number(headers: &[Header]) -> Option<usize> {
    let header = headers.iter().find(|header| header.key == LINE)?;
    std::str::from_utf8(header.value.as_deref()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_joined_are_the_file_again() {
        for file in ["", "\n", "a", "a\n", "a\n\nb", "\na\r\n"] {
            let lines = lines(&Bytes::from_static(file.as_bytes()));
            let joined = lines.iter().map(|line| line.to_vec()).collect::<Vec<_>>().join(&b'\n');
            assert_eq!(joined, file.as_bytes());
        }
    }

    #[test]
    fn a_record_is_known_by_its_number() {
        let header = |key: &str, value: Option<&'static str>| Header { key: key.into(), value: value.map(Into::into) };
        assert_eq!(line_number(&[header("other", Some("1")), header(LINE, Some("17"))]), Some(17));
        for headers in [vec![], vec![header(LINE, None)], vec![header(LINE, Some("x"))]] {
            assert_eq!(line_number(&headers), None);
        }
    }
}
