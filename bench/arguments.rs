//! What all load generators are told on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ringmq_client::{Acks, BrokerAddress};

use crate::driver::{DriverArgument, Topics};
use crate::error::LoadError;
use crate::source::By;
use crate::topic::TopicError;

/// Which broker and which topic.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Brokers to start from: `HOST[:PORT]`, several with commas between them
    #[arg(long, env = "RINGMQ_BROKERS", value_name = "ADDR", default_value = "localhost:9092", value_delimiter = ',')]
    pub brokers: Vec<BrokerAddress>,
    /// The protocol that they are spoken to in
    #[arg(long, value_enum, default_value_t = DriverArgument::Native)]
    pub driver: DriverArgument,
    /// The topic
    #[arg(long, value_name = "T", default_value = "bench")]
    pub topic: String,
    /// How many partitions the topic has; another number is refused
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Writes a page with a table and plots to this file, besides
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Target {
    /// Connects to where topics are made and found.
    pub(crate) fn connect(&self) -> Result<Box<dyn Topics>, TopicError> {
        self.driver.driver().connect(&self.brokers)
    }

    /// How consumers ask, where that is said; by a client where the driver has nothing else.
    pub(crate) fn by(&self, by: Option<By>) -> Result<Option<By>, LoadError> {
        match by {
            None if self.driver.is_client_alone() => Ok(Some(By::Client)),
            Some(By::Fetch | By::Subscribe) if self.driver.is_client_alone() => Err(LoadError::OnlyClient),
            by => Ok(by),
        }
    }
}

/// What is waited for before a record counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AcksArgument {
    /// Nothing; in the end it is checked that the records are there
    None,
    /// The partition's leader has the records on its disk
    Leader,
    /// Every in-sync replica has the records on its disk
    All,
}

impl AcksArgument {
    pub(crate) fn to_wire(self) -> Acks {
        match self {
            Self::None => Acks::None,
            Self::Leader => Acks::Leader,
            Self::All => Acks::All,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Leader => "leader",
            Self::All => "all",
        }
    }
}

/// A topic's setting as it is written on the command line.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE, such as flush_interval_ms=1000")),
    }
}

/// So many of `total` for the worker `index` of `workers`: as even as whole numbers allow, and `total` together.
pub(crate) fn share(total: u64, index: usize, workers: usize) -> u64 {
    let (index, workers) = (index as u64, workers as u64);
    total / workers + u64::from(index < total % workers)
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use std::time::Duration;

    use super::*;
    use crate::keys::KeyDistribution;
    use crate::pace::{Extent, Rate};
    use crate::{consume, end_to_end, produce};

    #[derive(Debug, Parser)]
    enum Line {
        Produce(produce::Arguments),
        Consume(consume::Arguments),
        EndToEnd(end_to_end::Arguments),
    }

    fn parse(line: &str) -> Result<Line, ErrorKind> {
        Line::try_parse_from(std::iter::once("bench").chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn every_flag_of_produce_is_taken() {
        let line = "produce --brokers a:1,[::1]:2 --topic t --partitions 3 --producers 4 --record-bytes 5 \
                    --batch-bytes 6 --in-flight 7 --acks leader --records 8 --warmup 9 --payload file --set a=b=c --json";
        let Ok(Line::Produce(found)) = parse(line) else { panic!("{:?}", parse(line)) };
        assert_eq!(found.target.brokers, [BrokerAddress::new("a", 1), BrokerAddress::new("::1", 2)]);
        assert_eq!((found.target.topic.as_str(), found.target.partitions, found.target.json), ("t", 3, true));
        let load = &found.load;
        assert_eq!((load.producers, load.record_bytes, load.batch_bytes, load.in_flight), (4, 5, 6, Some(7)));
        assert_eq!(
            (load.acks, load.extent(), load.warmup),
            (AcksArgument::Leader, Extent::Records(8), Extent::Records(9))
        );
        assert_eq!(load.payload.as_deref(), Some(std::path::Path::new("file")));
        assert_eq!(load.settings, [("a".to_owned(), "b=c".to_owned())]);
        assert!(parse("produce --set a").is_err() && parse("produce --set =b").is_err());

        let line = "produce --rate 50MB --duration 30s --warmup 2s --keys 1000 --key-distribution zipf --idempotent";
        let Ok(Line::Produce(found)) = parse(line) else { panic!("{:?}", parse(line)) };
        let load = &found.load;
        assert_eq!((found.rate, load.extent()), (Some(Rate::Bytes(50_000_000)), Extent::Time(Duration::from_secs(30))));
        assert_eq!((load.warmup, load.idempotent), (Extent::Time(Duration::from_secs(2)), true));
        assert_eq!((load.keys, load.key_distribution), (Some(1000), KeyDistribution::Zipf));
        assert_eq!(parse("produce --records 1 --duration 1s").unwrap_err(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn every_flag_of_end_to_end_is_taken() {
        let line = "end-to-end --topic t --partitions 3 --producers 4 --consumers 2 --rate 20000 --duration 5s --batch-bytes 10000";
        let Ok(Line::EndToEnd(found)) = parse(line) else { panic!("{:?}", parse(line)) };
        assert_eq!((found.load.producers, found.receiving.consumers, found.rate), (4, 2, Rate::Records(20_000)));
        assert_eq!(parse("end-to-end --duration 5s").unwrap_err(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn every_flag_of_consume_is_taken() {
        let line = "consume --brokers a --topic t --partitions 3 --consumers 4 --batch-bytes 6 --in-flight 7 \
                    --records 8 --warmup 9 --json";
        let Ok(Line::Consume(found)) = parse(line) else { panic!("{:?}", parse(line)) };
        assert_eq!((found.target.topic.as_str(), found.target.partitions, found.target.json), ("t", 3, true));
        assert_eq!((found.consumers, found.batch_bytes, found.in_flight), (4, 6, Some(7)));
        assert_eq!((found.records, found.warmup, found.by), (Some(8), 9, None));
        let Ok(Line::Consume(found)) = parse("consume --duration 2s --by fetch") else { panic!("valid") };
        assert_eq!((found.duration, found.by), (Some(Duration::from_secs(2)), Some(By::Fetch)));
        assert_eq!(parse("consume --duration 2s --records 5").unwrap_err(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for flags in [
            "--partitions 0",
            "--producers 0",
            "--record-bytes 0",
            "--batch-bytes 0",
            "--in-flight 0",
            "--records 0",
            "--records many",
            "--duration 5",
            "--rate fast",
            "--warmup much",
            "--keys 0",
            "--key-distribution odd",
            "--acks some",
            "--brokers host:port",
        ] {
            let error = parse(&format!("produce {flags}")).unwrap_err();
            assert!(matches!(error, ErrorKind::ValueValidation | ErrorKind::InvalidValue), "{flags}: {error}");
        }
        assert_eq!(parse("produce --unknown").unwrap_err(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn shares_are_even_and_add_up() {
        for total in [0, 1, 7, 8, 1001] {
            for workers in 1..9 {
                let shares: Vec<u64> = (0..workers).map(|index| share(total, index, workers)).collect();
                assert_eq!(shares.iter().sum::<u64>(), total);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
            }
        }
    }
}
