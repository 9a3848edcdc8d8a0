//! The spans that a program sees which listens to them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use ringmq_wire::protocol::RequestType;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use super::with_topic;
use crate::fetch::{FetchFrom, FetchOptions};
use crate::record::Record;
use crate::subscription::SubscribeOptions;
use crate::{Offset, PartitionIndex};

const FIRST: PartitionIndex = PartitionIndex::new(0);

/// A span's name, with its fields.
type Seen = (String, BTreeMap<String, String>);

/// Hears of every span that begins on this thread, and which have ended.
#[derive(Clone, Default)]
struct Listener {
    begun: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<Mutex<Vec<String>>>,
}

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let metadata = attributes.metadata();
        if metadata.module_path().is_some_and(|path| path.starts_with("ringmq_client")) {
            assert_eq!(metadata.target(), "ringmq_client", "{}", metadata.name());
            let mut fields = Fields(BTreeMap::new());
            attributes.record(&mut fields);
            self.begun.lock().unwrap().push((metadata.name().to_owned(), fields.0));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let name = context.span(&id).expect("it is known until then").name();
        self.ended.lock().unwrap().push(name.to_owned());
    }
}

impl Listener {
    fn listen(&self) -> impl Sized + use<> {
        super::listen(tracing_subscriber::registry().with(self.clone()))
    }

    /// The fields of the spans with this name.
    fn of(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        let begun = self.begun.lock().unwrap();
        begun.iter().filter(|(found, _)| found == name).map(|(_, fields)| fields.clone()).collect()
    }

    fn ended(&self, name: &str) -> usize {
        self.ended.lock().unwrap().iter().filter(|found| *found == name).count()
    }
}

fn fields<const N: usize>(fields: [(&str, &str); N]) -> BTreeMap<String, String> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn whatever_takes_its_time_has_a_span_and_a_record_has_none() {
    let listener = Listener::default();
    let _listening = listener.listen();
    let (broker, client) = with_topic().await;
    let address = broker.address().to_string();
    assert_eq!(listener.of("connection"), [fields([("address", &address)])]);
    assert!(listener.of("ask").contains(&fields([("operation", "create topics")])));
    assert_eq!(listener.ended("connection"), 0);

    let producer = client.producer();
    for number in 0..1_000 {
        drop(producer.enqueue("t", Record::value(number.to_string()).to_partition(FIRST)).await.unwrap());
    }
    producer.flush().await.unwrap();
    let requests = broker.ports_of(RequestType::Produce).len();
    let sent = listener.of("send");
    assert_eq!((sent.len(), listener.ended("send")), (requests, requests));
    assert!(requests < 100, "{requests} requests");
    for mut fields in sent {
        assert!(fields.remove("bytes").is_some());
        assert_eq!(fields, self::fields([("topic", "t"), ("partition", "0")]));
    }
    client.producer().idempotent(false).send_to("t", FIRST, "plain").await.unwrap();
    assert_eq!(listener.of("send").len(), requests + 1);

    let consumer = client.consumer();
    consumer.fetch("t", FIRST, Offset::new(7), FetchOptions::no_wait()).await.unwrap();
    let fetch = fields([("topic", "t"), ("partition", "0"), ("offset", "7")]);
    assert_eq!(listener.of("fetch"), [fetch]);
    let target = FetchFrom { topic: "t".to_owned(), partition: FIRST, offset: Offset::ZERO };
    consumer.fetch_many(&[target], FetchOptions::no_wait()).await.pop().unwrap().unwrap();
    assert_eq!(listener.of("fetch")[1], fields([("partitions", "1")]));

    let mut stream = consumer.stream("t", SubscribeOptions::default()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(listener.of("subscribe"), [fields([("topic", "t")])]);
    assert!(listener.of("ask").contains(&fields([("operation", "list offsets"), ("topic", "t")])));
    drop((stream, consumer, producer, client));
    broker.is_alone().await;
    let (begun, ended) = (listener.of("connection").len(), listener.ended("connection"));
    assert!(ended > 0 && ended <= begun, "{ended} of {begun}");
    assert!(listener.ended("subscribe") > 0);
}
