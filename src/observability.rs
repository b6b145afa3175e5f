//! Records of what happens: to stdout, one line each, because the Functions host files stdout as information and stderr as errors.
//!
//! As JSON a record is one flat object: `level`, `message`, its fields, `target`. The message is the key by which the queries
//! in `infra/monitoring` find it, so it names a kind of event and holds no value. `tests/it/records.rs` holds both together.

use std::io::{self, Write};

use tracing::Level;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer as _};

/// What is recorded of libraries: warnings, but not those of the Event Hubs client, which print whole backtraces.
/// What goes wrong there is told by our own records.
const LIBRARIES: &str = "warn,azure_messaging_eventhubs=off,azure_core_amqp=off";

/// What is recorded of this program if nothing is set.
const DEFAULT_LEVEL: Level = Level::INFO;

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

impl Default for Filter {
    fn default() -> Self {
        Self(format!("{LIBRARIES},tts_iot_hub={DEFAULT_LEVEL}"))
    }
}

impl Filter {
    /// A bare level such as `debug` is meant for this program's own records; a filter such as
    /// `info,tts_iot_hub::iot_hub=debug` is taken as it is. `None`: it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let filter = match text.parse::<Level>() {
            Ok(level) => format!("{LIBRARIES},tts_iot_hub={level}"),
            Err(_) => text.to_owned(),
        };
        EnvFilter::try_new(&filter).is_ok().then_some(Self(filter))
    }
}

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For queries.
    Json,
}

/// What is recorded, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// What is recorded.
    pub filter: Filter,
    /// How it is written.
    pub format: Format,
}

/// Starts recording.
///
/// # Errors
/// If recording was started before.
pub fn start(recording: &Recording) -> Result<(), TryInitError> {
    // Without colours and without a time: the host adds its own time, and a line is one record.
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(|| OneLine(std::io::stdout()));
    let lines = match recording.format {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(EnvFilter::new(&recording.filter.0)).with(lines).try_init()
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
    fn a_level_is_meant_for_the_bridge_and_a_filter_is_taken_as_it_is() {
        assert_eq!(Filter::parse("info"), Some(Filter::default()));
        assert_eq!(Filter::parse("warn,tts_iot_hub=trace"), Some(Filter("warn,tts_iot_hub=trace".to_owned())));
        assert_eq!(Filter::parse("info,tts_iot_hub=loud"), None);
    }

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
