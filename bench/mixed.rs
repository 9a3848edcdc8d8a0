//! `ringmq-bench mixed`: what the drain of a backlog does to those who produce and consume meanwhile.
//!
//! Producers and consumers work as in [`end_to_end`](crate::end_to_end), while readers take what another topic holds, as
//! fast as they get it, from its beginning to its end and again, until the producers have ended. What is read is old, so it
//! comes from the disk where the broker's memory does not hold it any more.

use clap::Args;

use crate::arguments::Target;
use crate::error::LoadError;
use crate::flow::{Flow, Outcome, Receiving};
use crate::load::Load;
use crate::pace::Rate;
use crate::report::{Report, Run};
use crate::topic::Topic;

/// What the drain of a backlog does to those who produce and consume meanwhile
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Broker and topic, which nobody else may write to meanwhile; a missing one is created.
    #[command(flatten)]
    pub target: Target,
    /// What is sent.
    #[command(flatten)]
    pub load: Load,
    /// What all producers together send, records (20000) or bytes (50MB) a second, instead of as fast as answers come
    #[arg(long, value_name = "RATE")]
    pub rate: Option<Rate>,
    /// Who receives.
    #[command(flatten)]
    pub receiving: Receiving,
    /// The topic that is drained: as many partitions as the other one, filled before, by `ringmq-bench produce`
    #[arg(long, value_name = "T")]
    pub backlog: String,
    /// Who drains it, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub readers: u16,
}

/// Produces, consumes and drains. Besides the figures gives what went wrong, if something did after the clock had started.
///
/// # Errors
/// What went wrong before.
pub fn measure(arguments: &Arguments) -> Result<(Report, Option<LoadError>), LoadError> {
    let Arguments { target: Target { topic, partitions, .. }, load, rate, receiving, .. } = arguments;
    let by = arguments.target.by(receiving.by)?;
    let mut topics = arguments.target.connect()?;
    let backlog = Topic::find(&mut *topics, &arguments.backlog, *partitions)?;
    let topic = Topic::create_or_find(&mut *topics, topic, *partitions, &load.settings)?;
    let mut flow = Flow::connect(&mut *topics, &topic, load, *rate, receiving, by)?;
    flow.warm_up()?;
    flow.add_readers(&mut *topics, &backlog, arguments.readers, receiving.fetch_bytes, by)?;
    let (Outcome { received, read, elapsed, failure }, spent) = flow.run("producing beside a drain");
    let errors = failure.as_ref().map_or(0, LoadError::count);
    let run = Run { verb: "mixed", done: received, errors, elapsed };
    let report = Report::new(run, &flow.latencies()?, spent, &topic.flush).sent(load).by(flow.by());
    let report = report.at_rate(*rate).produce_latency(&flow.produce_latencies()?);
    Ok((report.backlog_read(read), failure))
}
