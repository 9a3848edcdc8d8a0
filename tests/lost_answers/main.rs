//! Acknowledgements that are lost on their way: the client's own retries before a real broker.

#[cfg(test)]
mod proxy;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use ringmq_client::{Client, Delivery, Error, FetchOptions, NewTopic, Offset, PartitionIndex, Record};
    use ringmq_tests::{Broker, BrokerOptions, RawConnection};
    use ringmq_wire::protocol::DescribeClusterRequest;

    use crate::proxy::{self, Plan};

    const PARTITIONS: u32 = 3;
    /// Long enough for a debug broker on a busy machine; nothing waits for it unless it is broken.
    const LONG: Duration = Duration::from_secs(60);

    /// A broker that clients reach by the proxy alone.
    fn start() -> Broker {
        let args = vec!["--advertise".into(), proxy::ADDRESS.to_string()];
        Broker::start_with(BrokerOptions { args, ..BrokerOptions::default() })
    }

    /// Where the broker listens: at its public port, and at one for each shard.
    fn ports(broker: &Broker) -> Vec<SocketAddr> {
        let mut connection = RawConnection::open(broker.address()).expect("a connection");
        let cluster = connection.call(&DescribeClusterRequest {}).expect("an answer").expect("no error");
        let own = cluster.brokers[0].shards.iter().filter_map(|shard| shard.port);
        own.chain([broker.address().port()]).map(|port| SocketAddr::new(broker.address().ip(), port)).collect()
    }

    async fn connect(broker: &Broker, plan: &Arc<Plan>) -> Client {
        proxy::stand_before(&ports(broker), plan).await;
        let address = SocketAddr::new(proxy::ADDRESS, broker.address().port());
        let client = Client::builder().brokers(address).timeout(LONG).connect().await.expect("the broker answers");
        client.admin().create_topic(NewTopic::new("t").partitions(PARTITIONS)).await.expect("a new topic");
        client
    }

    /// Sends records with these numbers, several at a time, to all partitions; where each is, as it was answered.
    async fn send(client: &Client, numbers: std::ops::Range<u64>) -> Vec<(u64, Result<Delivery, Error>)> {
        // A request for each record.
        let producer = client.producer().batch_bytes_max(1);
        let sending = numbers.map(|number| {
            let producer = producer.clone();
            let partition = PartitionIndex::new(u32::try_from(number % u64::from(PARTITIONS)).expect("a partition"));
            tokio::spawn(
                async move { (number, producer.send_to("t", partition, Record::value(number.to_string())).await) },
            )
        });
        let mut outcomes = Vec::new();
        for sending in sending.collect::<Vec<_>>() {
            outcomes.push(sending.await.expect("no panic"));
        }
        outcomes
    }

    /// What is stored: the record's number by partition and offset.
    async fn stored(broker: &Broker) -> BTreeMap<(u32, i64), u64> {
        // The proxy's address is what the broker tells; what was lost is of no concern here.
        let address = SocketAddr::new(proxy::ADDRESS, broker.address().port());
        let client = Client::builder().brokers(address).timeout(LONG).connect().await.expect("the broker answers");
        let mut stored = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let mut next = Offset::ZERO;
            loop {
                let index = PartitionIndex::new(partition);
                let fetched =
                    client.consumer().fetch("t", index, next, FetchOptions::no_wait()).await.expect("readable");
                if fetched.next_offset == next {
                    break;
                }
                next = fetched.next_offset;
                for record in fetched.records {
                    let value = record.value.expect("a value");
                    let number = std::str::from_utf8(&value).expect("text").parse().expect("a number");
                    assert_eq!(stored.insert((partition, record.offset.get()), number), None);
                }
            }
        }
        stored
    }

    /// Every record is there once, where its answer said.
    async fn assert_stored_once(broker: &Broker, outcomes: Vec<(u64, Result<Delivery, Error>)>) {
        let answered: BTreeMap<(u32, i64), u64> = outcomes
            .into_iter()
            .map(|(number, delivery)| {
                let Delivery { partition, offset } =
                    delivery.unwrap_or_else(|error| panic!("record {number}: {error}"));
                ((partition.get(), offset.get()), number)
            })
            .collect();
        assert_eq!(stored(broker).await, answered);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_client_sends_again_after_a_lost_answer_is_stored_once() {
        let (broker, plan) = (start(), Plan::losing_each(4));
        let client = connect(&broker, &plan).await;
        let mut outcomes = Vec::new();
        for round in 0..15 {
            outcomes.extend(send(&client, round * 20..(round + 1) * 20).await);
        }
        plan.lose_each.store(0, Ordering::SeqCst);
        assert!(plan.lost() >= 10, "{plan:?}");
        assert_stored_once(&broker, outcomes).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_is_stored_once_too_by_a_broker_that_was_killed_in_between() {
        let (mut broker, plan) = (start(), Plan::losing_each(5));
        let client = connect(&broker, &plan).await;
        let mut outcomes = Vec::new();
        for round in 0..2 {
            let mut lost = plan.lost.subscribe();
            lost.mark_unchanged();
            let sending = tokio::spawn({
                let client = client.clone();
                async move { send(&client, round * 60..(round + 1) * 60).await }
            });
            lost.changed().await.expect("the plan lives");
            let restarted = tokio::task::spawn_blocking(move || broker.kill_and_restart());
            broker = restarted.await.expect("the broker comes back");
            // The public port stays; the shards have others.
            let public = broker.address();
            let new: Vec<SocketAddr> = ports(&broker).into_iter().filter(|port| *port != public).collect();
            proxy::stand_before(&new, &plan).await;
            outcomes.extend(sending.await.expect("no panic"));
        }
        plan.lose_each.store(0, Ordering::SeqCst);
        assert_stored_once(&broker, outcomes).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_an_identity_a_client_says_that_it_may_be_stored() {
        let (broker, plan) = (start(), Plan::losing_each(1));
        let client = connect(&broker, &plan).await;
        let producer = client.producer().idempotent(false);
        let outcome = producer.send_to("t", PartitionIndex::new(0), Record::value("7")).await;
        assert!(matches!(outcome, Err(Error::MaybeStored { .. })), "{outcome:?}");
        plan.lose_each.store(0, Ordering::SeqCst);
        assert_eq!(stored(&broker).await, BTreeMap::from([((0, 0), 7)]), "it was, and is not sent again");
    }
}
