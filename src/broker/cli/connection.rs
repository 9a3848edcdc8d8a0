//! Where the brokers are, for every command that talks to one.

use std::time::Duration;

use clap::Args;
use ringmq_client::BrokerAddress;

/// Where the brokers are; part of every command that talks to one.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    /// Brokers to start from; one that answers is enough.
    #[arg(
        long,
        value_name = "ADDR[,ADDR]",
        env = "RINGMQ_BROKERS",
        value_delimiter = ',',
        default_value = "localhost:9092"
    )]
    pub brokers: Vec<BrokerAddress>,
    /// How long one operation may take, such as 5s or 500ms; attempts that may help are repeated until then.
    #[arg(long, value_name = "DURATION", value_parser = timeout, default_value = "5s")]
    pub timeout: Duration,
}

/// The longest time-out that makes sense: a longer one is a typing error.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let wanted = || format!("`{text}` is not a duration from 1ms to 24h, such as 5s, 500ms or 1m30s");
    let duration: jiff::SignedDuration = text.parse().map_err(|_| wanted())?;
    let duration = Duration::try_from(duration).map_err(|_| wanted())?;
    if (Duration::from_millis(1)..=TIMEOUT_MAX).contains(&duration) { Ok(duration) } else { Err(wanted()) }
}
