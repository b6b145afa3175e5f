//! Records of what happens: to stdout, one line each, because the Functions host files stdout as information and stderr as errors.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Setting with the level or the filter.
pub const LOG_LEVEL: &str = "LOG_LEVEL";

/// What is recorded of libraries: warnings, but not those of the Event Hubs client, which print whole backtraces.
/// What goes wrong there is told by our own records.
const LIBRARIES: &str = "warn,azure_messaging_eventhubs=off,azure_core_amqp=off";

/// What is recorded of this program if nothing is set.
const DEFAULT_LEVEL: &str = "info";

/// Why no records can be written.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter is malformed.
    #[error("{LOG_LEVEL}: `{filter}` is neither a level nor a filter such as `info,tts_iot_hub::iot_hub=debug`")]
    Filter {
        /// The malformed filter.
        filter: String,
    },
    /// A subscriber exists already.
    #[error("start recording: {0}")]
    Subscriber(#[from] TryInitError),
}

/// Starts recording. A bare level such as `debug` is meant for this program's own records.
///
/// # Errors
/// If the filter is malformed or recording was started before.
pub fn start(filter: Option<&str>) -> Result<(), StartError> {
    let filter = match filter.map(str::trim).filter(|filter| !filter.is_empty()) {
        None => format!("{LIBRARIES},tts_iot_hub={DEFAULT_LEVEL}"),
        Some(level) if level.parse::<tracing::Level>().is_ok() => format!("{LIBRARIES},tts_iot_hub={level}"),
        Some(filter) => filter.to_owned(),
    };
    let parsed = EnvFilter::try_new(&filter).map_err(|_| StartError::Filter { filter })?;
    // Without colours and without a time: the host adds its own time, and a line is one record.
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(|| OneLine(std::io::stdout()));
    tracing_subscriber::registry().with(parsed).with(lines).try_init()?;
    Ok(())
}

/// Keeps a record on one line: the subscriber writes each record at once, and one that holds line breaks gets them escaped.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = record.strip_suffix(b"\n").unwrap_or(record);
        if !text.contains(&b'\n') {
            self.0.write_all(record)?;
        } else {
            let escaped = String::from_utf8_lossy(text).replace('\r', "").replace('\n', "\\n");
            self.0.write_all(format!("{escaped}\n").as_bytes())?;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_whatever_it_holds() {
        for (record, line) in
            [("plain\n", "plain\n"), ("an\nerror\r\n", "an\\nerror\n"), ("\n", "\n"), ("open", "open")]
        {
            let mut written = Vec::new();
            OneLine(&mut written).write_all(record.as_bytes()).expect("memory takes it");
            assert_eq!(String::from_utf8(written).expect("UTF-8"), line);
        }
    }
}
