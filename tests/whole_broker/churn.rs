//! A client that creates a topic, uses it, deletes it and creates it again.

use std::time::Duration;

use ringmq_runtime::{random, time};
use ringmq_wire::ErrorCode;
use ringmq_wire::codec::Codec;
use ringmq_wire::protocol::{CreateTopicsRequest, DeleteTopicsRequest, NewTopic, ProduceResponse};

use super::broker::ADDRESS;
use super::connection::{Connection, Lost};
use super::consumer;
use super::ledger::Place;
use super::producer::Batches;
use super::scenario::Stage;

const TOPIC: &str = "churned";

/// Churns until the scenario has enough.
pub(crate) async fn run(stage: Stage) {
    let mut topic = Churned { life: 0, step: Step::Create };
    while !stage.is_enough() {
        let _ = topic.churn_on_a_connection(&stage).await;
        time::sleep(Duration::from_micros(100 + random::u64() % 5_000)).await;
    }
}

/// What the topic was brought to, as far as is known for certain.
struct Churned {
    life: u32,
    step: Step,
}

/// What comes next. A step whose outcome got lost with its connection is made again.
enum Step {
    Create,
    Use,
    Delete,
}

impl Churned {
    async fn churn_on_a_connection(&mut self, stage: &Stage) -> Result<(), Lost> {
        let mut connection = Connection::open(ADDRESS).await?;
        let number = stage.ledger.new_sender();
        while !stage.is_enough() {
            let place = Place { topic: TOPIC.to_owned(), life: self.life, partition: 0 };
            match self.step {
                Step::Create => {
                    if create(stage, &mut connection, TOPIC, 1).await? {
                        self.step = Step::Use;
                    }
                }
                Step::Use => {
                    let request = Batches::one(stage, number, &place);
                    connection.send_produce(&request.head(), &request.sections()).await?;
                    match connection.receive().await?.1 {
                        Ok(body) => {
                            let response = ProduceResponse::decode_whole(&body).expect("it can be decoded");
                            request.acknowledged(stage, &response);
                        }
                        Err(error) => stage.allow(error.code, "a produce"),
                    }
                    if stage.is_stopping() {
                        return Ok(());
                    }
                    consumer::check(stage, &mut connection, &place).await?;
                    if random::u64().is_multiple_of(4) {
                        self.step = Step::Delete;
                    }
                }
                Step::Delete => {
                    if delete(stage, &mut connection).await? {
                        self.life += 1;
                        self.step = Step::Create;
                    }
                }
            }
            time::sleep(Duration::from_micros(random::u64() % 10_000)).await;
        }
        Ok(())
    }
}

/// Creates a topic; whether it is there now for certain.
pub(crate) async fn create(
    stage: &Stage,
    connection: &mut Connection,
    topic: &str,
    partitions: u32,
) -> Result<bool, Lost> {
    let topics = vec![NewTopic { name: topic.to_owned(), partitions, replicas: 1, settings: Vec::new() }];
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, validate_only: false };
    let created = connection.call(&request).await?;
    let code = created.map_or_else(|error| error.code, |created| created.topics[0].error);
    // An attempt before, whose answer got lost, may have made it.
    let there = matches!(code, ErrorCode::None | ErrorCode::TopicAlreadyExists);
    if !there {
        stage.allow(code, "a creation");
    }
    Ok(there)
}

async fn delete(stage: &Stage, connection: &mut Connection) -> Result<bool, Lost> {
    let request = DeleteTopicsRequest { topics: vec![TOPIC.to_owned()], timeout_ms: 30_000 };
    let deleted = connection.call(&request).await?;
    let code = deleted.map_or_else(|error| error.code, |deleted| deleted.topics[0].error);
    let gone = matches!(code, ErrorCode::None | ErrorCode::UnknownTopic);
    if !gone {
        stage.allow(code, "a deletion");
    }
    Ok(gone)
}
