//! `ringmq cluster describe`: the controller leader, the brokers, their shards, and what each owns.

use std::collections::BTreeMap;

use ringmq_client::{
    Admin, BrokerId, ClusterDescription, ControllerInfo, DescribedBroker, DescribedShard, ErrorCode, ShardIndex,
    TopicDescription,
};
use serde::Serialize;

use super::{CommandError, connect};
use crate::cli::{DescribeClusterArgs, OutputFormat};
use crate::exit::Exit;
use crate::output;

/// Topics that are described in one request.
const TOPICS_AT_A_TIME: usize = 100;

/// Describes the cluster.
///
/// # Errors
/// When no broker answers.
pub(crate) async fn describe(args: &DescribeClusterArgs) -> Result<Exit, CommandError> {
    let admin = connect(&args.connection).await?.admin();
    let controller = admin.discover_controller().await?;
    let cluster = admin.describe_cluster().await?;
    let owned = owned(&admin).await?;
    let described = Described::new(&cluster, &controller, &owned);
    match args.output.output {
        OutputFormat::Text => output::print(&described.to_text())?,
        OutputFormat::Json => output::print_json(&described)?,
    }
    Ok(Exit::Done)
}

/// Which partitions of which topics each shard owns.
type Owned = BTreeMap<(BrokerId, ShardIndex), BTreeMap<String, Partitions>>;

/// Partitions of one topic that one shard owns, by number.
#[derive(Debug, Default, Serialize)]
struct Partitions {
    partitions: Vec<u32>,
    /// Those among them that take and give no records.
    offline: Vec<u32>,
}

async fn owned(admin: &Admin) -> Result<Owned, CommandError> {
    let mut owned = Owned::new();
    let topics: Vec<String> = admin.list_topics().await?.into_iter().map(|topic| topic.name.to_string()).collect();
    for names in topics.chunks(TOPICS_AT_A_TIME) {
        for described in admin.describe_topics(names).await? {
            match described {
                Ok(topic) => add(&mut owned, &topic),
                // Deleted since they were listed.
                Err(error) if error.code() == Some(ErrorCode::UnknownTopic) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(owned)
}

fn add(owned: &mut Owned, topic: &TopicDescription) {
    for described in &topic.partitions {
        let partition = &described.metadata;
        let topics = owned.entry((partition.leader, partition.shard)).or_default();
        let partitions = topics.entry(topic.name.clone()).or_default();
        partitions.partitions.push(partition.partition.get());
        if partition.offline {
            partitions.offline.push(partition.partition.get());
        }
    }
}

#[derive(Serialize)]
struct Described<'a> {
    cluster_id: String,
    controller: Controller,
    brokers: Vec<Broker<'a>>,
}

#[derive(Serialize)]
struct Controller {
    broker: i32,
    address: String,
    epoch: u64,
}

#[derive(Serialize)]
struct Broker<'a> {
    broker: i32,
    host: &'a str,
    port: u16,
    version: &'a str,
    shards: Vec<Shard<'a>>,
}

#[derive(Serialize)]
struct Shard<'a> {
    shard: u16,
    cpu: Option<u32>,
    port: Option<u16>,
    partitions: u32,
    topics: Vec<Topic<'a>>,
}

#[derive(Serialize)]
struct Topic<'a> {
    topic: &'a str,
    #[serde(flatten)]
    partitions: &'a Partitions,
}

impl<'a> Described<'a> {
    fn new(cluster: &'a ClusterDescription, controller: &ControllerInfo, owned: &'a Owned) -> Self {
        let shard = |broker: &DescribedBroker, shard: &DescribedShard| {
            let topics = owned.get(&(broker.id, shard.shard)).into_iter().flatten();
            Shard {
                shard: shard.shard.get(),
                cpu: shard.cpu,
                port: shard.port,
                partitions: shard.partitions,
                topics: topics.map(|(topic, partitions)| Topic { topic, partitions }).collect(),
            }
        };
        let broker = |broker: &'a DescribedBroker| Broker {
            broker: broker.id.get(),
            host: &broker.host,
            port: broker.port,
            version: &broker.version,
            shards: broker.shards.iter().map(|one| shard(broker, one)).collect(),
        };
        Self {
            cluster_id: cluster.cluster_id.to_string(),
            controller: Controller {
                broker: controller.id.get(),
                address: controller.address.to_string(),
                epoch: controller.epoch,
            },
            brokers: cluster.brokers.iter().map(broker).collect(),
        }
    }

    fn to_text(&self) -> String {
        let Controller { broker, address, epoch } = &self.controller;
        let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        let brokers = self.brokers.iter().map(|one| {
            let owned: u32 = one.shards.iter().map(|shard| shard.partitions).sum();
            let role = if one.broker == *broker { "controller leader" } else { "broker" };
            let address = format!("{}:{}", one.host, one.port);
            let (shards, version) = (one.shards.len().to_string(), one.version.to_owned());
            vec![one.broker.to_string(), address, role.to_owned(), shards, owned.to_string(), version]
        });
        let shards = self.brokers.iter().flat_map(|broker| broker.shards.iter().map(move |shard| (broker, shard)));
        let owned = shards.clone().flat_map(|(broker, shard)| {
            shard.topics.iter().map(move |Topic { topic, partitions }| {
                let offline = if partitions.offline.is_empty() { "-".to_owned() } else { spans(&partitions.offline) };
                let (shard, numbers) = (shard.shard.to_string(), spans(&partitions.partitions));
                vec![broker.broker.to_string(), shard, (*topic).to_owned(), numbers, offline]
            })
        });
        let shards = shards.map(|(broker, shard)| {
            let (cpu, port) = (shard.cpu.map(|cpu| cpu.to_string()), shard.port.map(|port| port.to_string()));
            let (number, partitions) = (shard.shard.to_string(), shard.partitions.to_string());
            vec![broker.broker.to_string(), number, or_dash(cpu), or_dash(port), partitions]
        });
        let mut tables = vec![
            format!("cluster {}\ncontroller leader: broker {broker} at {address}, epoch {epoch}", self.cluster_id),
            output::table(&["BROKER", "ADDRESS", "ROLE", "SHARDS", "PARTITIONS", "VERSION"], brokers),
            output::table(&["BROKER", "SHARD", "CPU", "PORT", "PARTITIONS"], shards),
        ];
        let mut owned = owned.peekable();
        if owned.peek().is_some() {
            tables.push(output::table(&["BROKER", "SHARD", "TOPIC", "OWNS", "OFFLINE"], owned));
        }
        tables.join("\n\n")
    }
}

/// Rising numbers, neighbours as spans: `0,2-4`, as `--partition` takes them.
fn spans(numbers: &[u32]) -> String {
    let neighbours = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next));
    let span = |span: &[u32]| match span {
        [first, .., last] => format!("{first}-{last}"),
        one => one.iter().map(u32::to_string).collect(),
    };
    neighbours.map(span).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_told_as_spans() {
        assert_eq!(spans(&[]), "");
        assert_eq!(spans(&[3]), "3");
        assert_eq!(spans(&[0, 2, 3, 4, 7, 8]), "0,2-4,7-8");
    }
}
