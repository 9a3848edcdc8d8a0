//! `ringmq log repair`: a partition that a start refuses, cut before the damage; the metadata in `repair_metadata`.

use std::fmt::Write;

use ringmq_shard::inspect::{InspectError, RepairPlan, StoppedBroker};
use ringmq_wire::PartitionIndex;
use serde::Serialize;

use super::{LogError, on_executor, repair_metadata};
use crate::cli::{LogRepairArgs, OutputFormat};
use crate::commands::CommandError;
use crate::exit::Exit;
use crate::output;

/// Explains, and with `--yes` repairs.
///
/// # Errors
/// When there is nothing to repair, it would be of no use, or it failed; or nobody said yes.
pub(crate) fn run(args: &LogRepairArgs) -> Result<Exit, CommandError> {
    // Without a partition the command line is that of the metadata.
    let (Some(topic), Some(partition)) = (args.topic.clone(), args.partition) else {
        return repair_metadata::run(args);
    };
    let (dir, partition) = (args.dir.clone(), PartitionIndex::new(partition));
    let agreed = args.yes;
    let repaired = on_executor(move || async move {
        let broker = StoppedBroker::open(&dir).await?;
        let plan = broker.plan_repair(&topic, partition).await?;
        let done = if agreed { Some(broker.carry_out(&plan).await) } else { None };
        Ok::<_, InspectError>((plan, done))
    })?;
    let (plan, done) = repaired.map_err(LogError::from)?;
    let explained = Explained::new(&plan, matches!(done, Some(Ok(()))));
    conclude(&explained, &explained.to_text(), args, done)
}

/// Prints what is explained, and says how the repair ended.
pub(super) fn conclude(
    explained: &impl Serialize,
    text: &str,
    args: &LogRepairArgs,
    done: Option<Result<(), InspectError>>,
) -> Result<Exit, CommandError> {
    match args.output.output {
        OutputFormat::Text => output::print(text.trim_end())?,
        OutputFormat::Json => output::print_json(explained)?,
    }
    done.ok_or(LogError::NotAgreed)?.map_err(LogError::from)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Explained {
    damage: String,
    kept_start_offset: i64,
    kept_end_offset: i64,
    acknowledged_end_offset: i64,
    last_segment: Option<String>,
    moved: Vec<String>,
    aside: String,
    repaired: bool,
}

impl Explained {
    fn new(plan: &RepairPlan, repaired: bool) -> Self {
        Self {
            damage: plan.damage.to_string(),
            kept_start_offset: plan.kept.start.get(),
            kept_end_offset: plan.kept.end.get(),
            acknowledged_end_offset: plan.acknowledged_end.get(),
            last_segment: plan.last_segment.as_ref().map(|path| path.display().to_string()),
            moved: plan.moved.iter().map(|path| path.display().to_string()).collect(),
            aside: plan.aside.display().to_string(),
            repaired,
        }
    }

    fn to_text(&self) -> String {
        let (start, end, acknowledged) = (self.kept_start_offset, self.kept_end_offset, self.acknowledged_end_offset);
        let mut text =
            format!("damaged:  {}\nkept:     the records of offsets {start} to {end} (exclusive)\n", self.damage);
        let lost = if acknowledged > end {
            format!("those of offsets {end} to {acknowledged} (exclusive), which were acknowledged, and any behind")
        } else {
            "none that are known to have been acknowledged".to_owned()
        };
        let _ = writeln!(text, "lost:     {lost}");
        let _ = writeln!(
            text,
            "          the next record gets offset {end}: consumers that were further see other records"
        );
        if let Some(segment) = &self.last_segment {
            let _ = writeln!(text, "cut:      {segment}, of which a copy as it is goes to {}", self.aside);
        }
        for segment in &self.moved {
            let _ = writeln!(text, "moved:    {segment}, to {}", self.aside);
        }
        if self.repaired {
            let _ = writeln!(text, "repaired: the next start serves the partition");
        }
        text
    }
}
