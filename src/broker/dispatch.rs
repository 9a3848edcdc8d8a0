//! From the command that was typed to the code that does it.

use std::future::Future;
use std::process::ExitCode;

use crate::cli::{ClusterCommand, Command, LogCommand, TopicCommand};
use crate::commands::{
    CommandError, cluster, command_file, consume, demo, doctor, documents, log, produce, stats, topic,
};
use crate::exit::{self, Exit};
use crate::serve;

/// Does what `command` says, and tells on standard error when it fails.
pub fn run(command: &Command) -> ExitCode {
    let ended = done(command).unwrap_or_else(|error| {
        if error.exit() != Exit::Done {
            exit::report(&error);
        }
        error.exit()
    });
    ended.into()
}

fn done(command: &Command) -> Result<Exit, CommandError> {
    match command {
        Command::Serve(args) => Ok(serve::run(args)),
        Command::Run(args) => done(&command_file::read(args)?),
        Command::Completions(args) => documents::completions(args),
        Command::Man(args) => documents::man(args),
        Command::Demo(args) => on_tokio(demo::run(args)),
        Command::Cluster(ClusterCommand::Describe(args)) => on_tokio(cluster::describe(args)),
        Command::Doctor(args) => doctor::run(args),
        Command::Log(LogCommand::Check(args)) => log::check(args),
        Command::Log(LogCommand::Dump(args)) => log::dump(args),
        Command::Log(LogCommand::Repair(args)) => log::repair(args),
        Command::Topic(TopicCommand::Create(args)) | Command::CreateTopic(args) => on_tokio(topic::create(args)),
        Command::Topic(TopicCommand::List(args)) | Command::ListTopics(args) => on_tokio(topic::list(args)),
        Command::Topic(TopicCommand::Describe(args)) | Command::DescribeTopic(args) => on_tokio(topic::describe(args)),
        Command::Topic(TopicCommand::Alter(args)) => on_tokio(topic::alter(args)),
        Command::Topic(TopicCommand::Trim(args)) => on_tokio(topic::trim(args)),
        Command::Topic(TopicCommand::Delete(args)) | Command::DeleteTopic(args) => on_tokio(topic::delete(args)),
        Command::Produce(args) => on_tokio(produce::run(args)),
        Command::Consume(args) => on_tokio(consume::run(args)),
        Command::Stats(args) => on_tokio(stats::run(args)),
    }
}

/// Runs a client command: this thread computes and prints, and may block; another one keeps the connections going.
fn on_tokio(command: impl Future<Output = Result<Exit, CommandError>>) -> Result<Exit, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(CommandError::Setup)?.block_on(command)
}
