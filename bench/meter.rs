//! What broker and generator take of the machine while a run lasts.

use std::time::{Duration, Instant};

use ringmq_client::BrokerAddress;
use serde::{Deserialize, Serialize};

use crate::process::{Process, Usage};
use crate::workers::Progress;

/// Samples are not closer together.
const SAMPLED_EVERY: Duration = Duration::from_millis(200);

/// What had been done and used at one moment, from the start of the run on. What is about the broker is none when it does
/// not run on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub seconds: f64,
    /// Records that were acknowledged or received.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// The longest latency since the sample before, in microseconds.
    pub latency_max_us: f64,
    /// Processor time of the broker.
    pub broker_cpu_seconds: Option<f64>,
    /// Resident memory of the broker at that moment.
    pub broker_memory_bytes: Option<u64>,
    /// Bytes that the broker had written to disks.
    pub broker_written_bytes: Option<u64>,
    /// Bytes that the broker had read from disks.
    pub broker_read_bytes: Option<u64>,
}

/// Follows what the processes use from a moment on.
#[derive(Debug)]
pub(crate) struct Meter {
    broker: Option<Watched>,
    /// The kernel has counted the broker's most memory since this was started.
    counts_peak: bool,
    /// The broker's most memory, of samples.
    peak_sampled: u64,
    own: Option<Watched>,
    samples: Vec<Sample>,
    sampled: Instant,
}

#[derive(Debug)]
struct Watched {
    process: Process,
    before: Usage,
}

impl Watched {
    fn start(process: Process) -> Option<Self> {
        Some(Self { process, before: process.usage()? })
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some(self.before.seconds_until(&self.process.usage()?))
    }
}

/// The most resident memory during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeakMemory {
    pub(crate) bytes: u64,
    /// Of samples: the kernel's own count, of each moment, cannot be begun anew by this process.
    pub(crate) is_sampled: bool,
}

/// What a run took. None for a process that cannot be looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spent {
    pub(crate) broker_seconds: Option<f64>,
    pub(crate) own_seconds: Option<f64>,
    pub(crate) broker_peak_memory: Option<PeakMemory>,
    pub(crate) samples: Vec<Sample>,
}

impl Meter {
    /// Starts now, for this process and for the one that listens at `broker`.
    pub(crate) fn start(broker: &BrokerAddress) -> Self {
        let broker = Process::listening_at(broker).and_then(Watched::start);
        Self {
            counts_peak: broker.as_ref().is_some_and(|broker| broker.process.forget_peak_memory()),
            peak_sampled: 0,
            broker,
            own: Watched::start(Process::current()),
            samples: Vec::new(),
            sampled: Instant::now(),
        }
    }

    /// Takes a sample, if the last one is not too young.
    pub(crate) fn sample(&mut self, progress: &Progress) {
        if self.sampled.elapsed() < SAMPLED_EVERY {
            return;
        }
        self.sampled = Instant::now();
        let done = progress.done();
        let mut sample = Sample {
            seconds: progress.started().elapsed().as_secs_f64(),
            records: done.records,
            bytes: done.bytes,
            latency_max_us: progress.take_longest().as_nanos() as f64 / 1e3,
            ..Sample::default()
        };
        if let Some(broker) = &self.broker {
            let moved = broker.process.disk().zip(broker.before.disk);
            sample.broker_cpu_seconds = broker.cpu_seconds();
            sample.broker_memory_bytes = broker.process.memory().map(|memory| memory.now_bytes);
            self.peak_sampled = self.peak_sampled.max(sample.broker_memory_bytes.unwrap_or_default());
            sample.broker_written_bytes = moved.map(|(now, before)| now.written.saturating_sub(before.written));
            sample.broker_read_bytes = moved.map(|(now, before)| now.read.saturating_sub(before.read));
        }
        self.samples.push(sample);
    }

    pub(crate) fn stop(self) -> Spent {
        let broker = self.broker.as_ref();
        Spent {
            broker_seconds: broker.and_then(Watched::cpu_seconds),
            own_seconds: self.own.as_ref().and_then(Watched::cpu_seconds),
            broker_peak_memory: broker.and_then(|broker| {
                let memory = broker.process.memory()?;
                let bytes = if self.counts_peak { memory.peak_bytes } else { self.peak_sampled.max(memory.now_bytes) };
                Some(PeakMemory { bytes, is_sampled: !self.counts_peak })
            }),
            samples: self.samples,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::volume::Volume;

    #[test]
    fn samples_tell_what_was_done_and_used() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = BrokerAddress::from(listener.local_addr().unwrap());
        // What was used before the run is not of the run.
        let before = vec![1_u8; 256 << 20];
        assert!(before.iter().all(|byte| *byte == 1));
        let full = Process::current().memory().unwrap().now_bytes;
        drop(before);
        // The test is its own broker.
        let mut meter = Meter::start(&address);
        let progress = Progress::start();
        progress.add(Volume { records: 3, bytes: 70 }, Duration::from_micros(5));
        progress.add(Volume::default(), Duration::from_micros(4));
        while meter.samples.is_empty() {
            std::thread::yield_now();
            meter.sample(&progress);
        }
        let spent = meter.stop();
        let sample = spent.samples[0];
        assert_eq!((sample.records, sample.bytes, sample.latency_max_us), (3, 70, 5.0));
        assert_eq!(progress.take_longest(), Duration::ZERO);
        assert!(sample.seconds > 0.0 && sample.broker_cpu_seconds.is_some_and(|seconds| seconds > 0.0), "{sample:?}");
        assert!(spent.broker_seconds >= sample.broker_cpu_seconds, "{spent:?}");
        let peak = spent.broker_peak_memory.unwrap();
        assert!(Some(peak.bytes) >= sample.broker_memory_bytes && peak.bytes < full - (128 << 20), "{full}: {spent:?}");
        assert!(sample.broker_written_bytes.is_some() && sample.broker_read_bytes.is_some(), "{sample:?}");
    }

    #[test]
    fn of_a_broker_elsewhere_nothing_is_told() {
        let spent = Meter::start(&BrokerAddress::new("192.0.2.1", 9092)).stop();
        assert_eq!((spent.broker_seconds, spent.broker_peak_memory), (None, None));
        assert!(spent.own_seconds.is_some());
    }
}
