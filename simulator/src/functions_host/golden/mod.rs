//! Recordings of a running host, played again: the same events and the same answers must make the same bytes and the
//! same verdicts. `fixtures/README.md` says where they come from, `fixtures/coverage.tsv` which there are.

mod answers;
mod by_hand;
mod course;
mod envelopes;
mod exits;
mod http_calls;
mod retries;
mod scripted;
mod starts;
mod stops;
mod streams;
mod timeouts;

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What every fixture begins with.
#[derive(Deserialize)]
struct Name {
    recording: String,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/functions_host/fixtures")
}

/// All fixtures of a folder whose file names fit, in the order of their names.
fn fixtures<T: DeserializeOwned>(name: &str, fits: impl Fn(&str) -> bool) -> Vec<T> {
    let files = std::fs::read_dir(folder().join(name)).expect("the folder of fixtures can be read");
    let mut paths: Vec<_> = files.map(|file| file.expect("a folder's entry can be read").path()).collect();
    paths.sort();
    paths.retain(|path| path.file_stem().and_then(|stem| stem.to_str()).is_some_and(&fits));
    let read = |path: PathBuf| {
        let text = std::fs::read(&path).expect("a fixture can be read");
        serde_json::from_slice(&text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
    };
    let all: Vec<T> = paths.into_iter().map(read).collect();
    assert!(!all.is_empty(), "no fixture in {name}");
    all
}

/// Bytes of a recording: text, base64, or parts of which some are only told by their rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Base64 { b64: String },
    Repeated { repeat: String, times: usize },
    Parts(Vec<Bytes>),
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Bytes {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Base64 { b64 } => STANDARD.decode(b64).expect("it is base64"),
            Self::Repeated { repeat, times } => repeat.repeat(*times).into_bytes(),
            Self::Parts(parts) => parts.iter().flat_map(Self::bytes).collect(),
        }
    }

    /// The text of a head, which is ASCII.
    fn text(&self) -> String {
        String::from_utf8(self.bytes()).expect("heads are text")
    }
}

/// Ports and ids are never the same twice.
fn blank(head: &str) -> String {
    let lines = head.split("\r\n").map(|line| match line.split_once(": ") {
        Some(("Host", _)) => "Host: 127.0.0.1:PORT".to_owned(),
        Some((name @ ("X-Azure-Functions-InvocationId" | "x-ms-invocation-id"), _)) => format!("{name}: ID"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

/// Folder of the fixtures, name of the test that plays all of them, and proof that it exists.
macro_rules! played {
    ($($folder:literal => $module:ident::$test:ident),* $(,)?) => {
        [$(($folder, stringify!($test), $module::$test as fn())),*]
    };
}

#[test]
fn every_recording_is_played_or_left_out_with_a_reason() {
    let played = played![
        "proxy" => http_calls::every_recorded_http_call_is_made_again,
        "envelopes" => envelopes::every_recorded_envelope_is_made_again_byte_for_byte,
        "admin" => by_hand::every_recorded_call_by_hand_is_made_again,
        "answers" => answers::every_recorded_answer_is_judged_as_the_host_did,
        "retries" => retries::every_recorded_retry_runs_the_same_course,
        "starts" => starts::every_recorded_start_is_made_again,
        "exits" => exits::every_recorded_exit_has_the_same_consequence,
        "stops" => stops::every_recorded_stop_ends_the_same_way,
        "timeouts" => timeouts::a_recorded_timeout_kills_the_handler_and_its_neighbours,
    ];
    let of_fixtures = played.iter().flat_map(|(folder, test, _)| {
        let names = fixtures::<Name>(folder, |_| true);
        names.into_iter().map(|name| (name.recording, (*test).to_owned()))
    });
    let of_fixtures: BTreeSet<_> = of_fixtures.collect();
    let table = std::fs::read_to_string(folder().join("coverage.tsv")).expect("the table can be read");
    let (mut covered, mut left_out) = (BTreeSet::new(), 0);
    for line in table.lines().skip(1) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [recording, "covered", test] => assert!(covered.insert((recording.to_owned(), test.to_owned()))),
            [_, "left out", reason] => {
                assert!(!reason.is_empty(), "{line}");
                left_out += 1;
            }
            _ => panic!("a line of the table is not valid: {line}"),
        }
    }
    assert_eq!(covered, of_fixtures);
    println!("recordings: {} covered, {left_out} left out", covered.len());
    assert_eq!(covered.len() + left_out, 434, "all recordings are in the table");
}
