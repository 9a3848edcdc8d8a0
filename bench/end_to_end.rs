//! `ringmq-bench end-to-end`: how long records are on their way from producers to consumers.
//!
//! Producers send batches at a constant rate, and each batch says in its first record when it was due. Consumers subscribe to
//! their partitions, so that a batch is sent as soon as it may be seen. Where the broker has no subscriptions, or with
//! `--by fetch`, they have one fetch waiting at the broker for each of their partitions, which comes to the same (by Kafka,
//! which works on one request of a connection at a time, once those before it are answered). All are
//! threads of this process, and read one clock. The latency of a batch is from when it was due to when its last byte was
//! received and its checksum found right: a stall on any side counts in full.
//!
//! With `--by client` each producer and each consumer is a client as programs use it: the producer hands over one by one as many
//! records as fill a batch, or as `--burst` says, when they are due, and each record has a stamp and a latency of its own.

use clap::Args;

use crate::arguments::Target;
use crate::error::LoadError;
use crate::flow::{Flow, Outcome, Receiving};
use crate::load::Load;
use crate::pace::Rate;
use crate::report::{Report, Run};
use crate::topic::Topic;

/// How long records take from producers to consumers, at a constant rate
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Broker and topic, which nobody else may write to meanwhile; a missing one is created.
    #[command(flatten)]
    pub target: Target,
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// What all producers together send: records (20000) or bytes (50MB) a second
    #[arg(long, value_name = "RATE")]
    pub rate: Rate,
    /// Who receives.
    #[command(flatten)]
    pub receiving: Receiving,
}

/// Produces and consumes. Besides the figures gives what went wrong, if something did after the clock had started.
///
/// # Errors
/// What went wrong before.
pub fn measure(arguments: &Arguments) -> Result<(Report, Option<LoadError>), LoadError> {
    let Arguments { target: Target { topic, partitions, .. }, load, rate, receiving } = arguments;
    let by = arguments.target.by(receiving.by)?;
    let mut topics = arguments.target.connect()?;
    let topic = Topic::create_or_find(&mut *topics, topic, *partitions, &load.settings)?;
    let mut flow = Flow::connect(&mut *topics, &topic, load, Some(*rate), receiving, by)?;
    flow.warm_up()?;
    let (Outcome { received, elapsed, failure, .. }, spent) = flow.run("end to end");
    let errors = failure.as_ref().map_or(0, LoadError::count);
    let run = Run { verb: "end-to-end", done: received, errors, elapsed };
    let report = Report::new(run, &flow.latencies()?, spent, &topic.flush).sent(load).by(flow.by());
    Ok((report.at_rate(Some(*rate)).produce_latency(&flow.produce_latencies()?), failure))
}
