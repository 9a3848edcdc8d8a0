//! `ringmq log repair --metadata`: a metadata log that a start refuses, begun anew with all that can be read.

use std::collections::BTreeMap;
use std::fmt::Write;

use ringmq_shard::inspect::{KeptTopic, MetadataRepair, repair_metadata};
use serde::Serialize;

use super::repair::conclude;
use super::{LogError, on_executor};
use crate::cli::LogRepairArgs;
use crate::commands::CommandError;
use crate::exit::Exit;

/// Explains, and with `--yes` repairs.
///
/// # Errors
/// When there is nothing to repair, or it failed; or nobody said yes.
pub(super) fn run(args: &LogRepairArgs) -> Result<Exit, CommandError> {
    let (dir, agreed) = (args.dir.clone(), args.yes);
    let repaired = on_executor(move || async move { repair_metadata(&dir, agreed).await })?;
    let (plan, done) = repaired.map_err(LogError::from)?;
    let explained = Explained::new(&plan, matches!(done, Some(Ok(()))));
    conclude(&explained, &explained.to_text(), args, done)
}

#[derive(Serialize)]
struct Explained {
    damage: String,
    snapshot_offset: Option<i64>,
    topics: Vec<Topic>,
    lost: Vec<Lost>,
    end_is_unknown: bool,
    left_out: Vec<LeftOut>,
    topics_without_files: Vec<String>,
    unknown_topics: Vec<String>,
    hidden_partitions: Vec<String>,
    begins_at_offset: i64,
    aside: String,
    repaired: bool,
}

#[derive(Serialize)]
struct Topic {
    name: String,
    partitions: u32,
    /// What it chose for itself.
    settings: BTreeMap<&'static str, String>,
}

/// Changes of which nothing is left.
#[derive(Serialize)]
struct Lost {
    start_offset: i64,
    end_offset: i64,
}

/// A change that can be read, and means nothing without what is lost.
#[derive(Serialize)]
struct LeftOut {
    offset: i64,
    why: String,
}

impl Explained {
    fn new(plan: &MetadataRepair, repaired: bool) -> Self {
        let lost = |range: &std::ops::Range<_>| {
            let std::ops::Range::<ringmq_wire::Offset> { start, end } = range;
            Lost { start_offset: start.get(), end_offset: end.get() }
        };
        let topic = |kept: &KeptTopic| {
            let KeptTopic { name, partitions, settings } = kept.clone();
            Topic { name, partitions, settings }
        };
        let left_out = plan.left_out.iter().map(|(offset, why)| LeftOut { offset: offset.get(), why: why.to_string() });
        Self {
            damage: plan.damage.to_string(),
            snapshot_offset: plan.snapshot.map(ringmq_wire::Offset::get),
            topics: plan.topics.iter().map(topic).collect(),
            lost: plan.lost.iter().map(lost).collect(),
            end_is_unknown: plan.end_is_unknown,
            left_out: left_out.collect(),
            topics_without_files: plan.without_files.clone(),
            unknown_topics: plan.unknown.iter().map(ToString::to_string).collect(),
            hidden_partitions: plan.hidden.iter().map(ToString::to_string).collect(),
            begins_at_offset: plan.begins_at().get(),
            aside: plan.aside.display().to_string(),
            repaired,
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!("damaged:  {}\n", self.damage);
        let from = self.snapshot_offset.map_or_else(
            || "from the changes that can be read".to_owned(),
            |offset| format!("from the snapshot of offset {offset} and the changes behind it that can be read"),
        );
        let partitions: u32 = self.topics.iter().map(|topic| topic.partitions).sum();
        let names: Vec<&str> = self.topics.iter().map(|topic| topic.name.as_str()).collect();
        let _ = writeln!(text, "kept:     {} topic(s) with {partitions} partition(s), {from}", self.topics.len());
        let _ = writeln!(text, "          {}", shortened(&names));
        self.write_lost(&mut text);
        for LeftOut { offset, why } in &self.left_out {
            let _ = writeln!(
                text,
                "left out: the change at offset {offset}, which means nothing without what is lost: {why}"
            );
        }
        for id in &self.unknown_topics {
            let _ = writeln!(text, "unknown:  directory {id}: no topic of the metadata owns it; it is left alone");
        }
        for hidden in &self.hidden_partitions {
            let _ = writeln!(text, "hidden:   {hidden}");
        }
        let _ = writeln!(text, "copied:   all of the metadata, as it is, to {}", self.aside);
        let _ =
            writeln!(text, "then:     the metadata begins anew at offset {}, with a snapshot", self.begins_at_offset);
        if self.repaired {
            let _ = writeln!(text, "repaired: the next start works");
        }
        text
    }

    fn write_lost(&self, text: &mut String) {
        for Lost { start_offset, end_offset } in &self.lost {
            let _ = writeln!(text, "lost:     the changes of offsets {start_offset} to {end_offset} (exclusive)");
        }
        if self.end_is_unknown {
            let _ = writeln!(text, "lost:     any changes behind what is known: nobody knows whether there were some");
        }
        if self.lost.is_empty() && !self.end_is_unknown {
            let _ = writeln!(text, "lost:     nothing: a snapshot has what is damaged");
            return;
        }
        let _ = writeln!(
            text,
            "          a topic that was created there is not known any more (its files stay), one that was deleted there is \
             back, and one that was altered there is as it was before"
        );
        let _ = writeln!(
            text,
            "          by settings of before a broker deletes and compacts: start it with retention_interval_ms and \
             compaction_interval_ms at 86400000, put the settings of the topics right, and start it again without"
        );
        if !self.topics_without_files.is_empty() {
            let names: Vec<&str> = self.topics_without_files.iter().map(String::as_str).collect();
            let _ = writeln!(
                text,
                "          these have no files, so nothing was ever appended to them, or they were deleted there; if so, delete \
                 them again: {}",
                shortened(&names)
            );
        }
    }
}

/// The first names of many.
fn shortened(names: &[&str]) -> String {
    const SHOWN_MAX: usize = 20;
    let shown = names.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(SHOWN_MAX);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
