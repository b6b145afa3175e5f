//! A handler in a process of its own that follows a script and tells its course, for recordings in which it dies.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;

use super::scripted::{Answer, Scripted, Seen};
use crate::functions_host::tests::{AppFolder, PATIENCE};
use crate::functions_host::{FunctionsHost, HostOptions, Pace};

/// The folder with the script and the course.
const FOLDER: &str = "SCRIPT_FOLDER";
const FACTOR: &str = "SCRIPT_FACTOR";
/// Seconds before the port opens.
const LATE: &str = "SCRIPT_LATE";

/// What each path answers, one request after the other; then with success.
pub(super) type Answers = BTreeMap<String, Vec<serde_json::Value>>;

/// Not a test: the handler that others start, in this same program.
#[tokio::test]
#[ignore = "runs as the handler of other tests"]
async fn scripted_process() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(folder), Some(port)) = (variable(FOLDER).map(PathBuf::from), variable("FUNCTIONS_CUSTOMHANDLER_PORT"))
    else {
        return;
    };
    tell(&folder, "start");
    let number = |name: &str| variable(name).and_then(|text| text.parse().ok());
    let pace = Pace::times(number(FACTOR).unwrap_or(1));
    let late = Duration::from_secs(number(LATE).unwrap_or(0).into());
    tokio::time::sleep(pace.of(late)).await;
    let port = port.parse().expect("the host gives a port");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.expect("the port is free");
    let script = std::fs::read(folder.join("script.json")).expect("there is a script");
    let script: BTreeMap<String, Vec<Answer>> = serde_json::from_slice(&script).expect("it is a script");
    let claims = folder.clone();
    let next = move |seen: &Seen| {
        let path = seen.line().split(' ').nth(1).unwrap_or_default();
        let answers = script.get(path).map(Vec::as_slice).unwrap_or_default();
        let mut free = answers.iter().enumerate().filter(|(at, _)| claim(&claims, path, *at));
        free.next().map_or_else(Answer::ok, |(_, answer)| answer.clone())
    };
    let scripted = Scripted::new(Box::new(next), pace, Box::new(move |line| tell(&folder, line)));
    scripted.serve(listener).await;
}

/// Each answer is for one request, whichever process gets it.
fn claim(folder: &Path, path: &str, at: usize) -> bool {
    std::fs::File::create_new(folder.join(format!("{}-{at}", path.replace('/', "_")))).is_ok()
}

fn tell(folder: &Path, line: &str) {
    let mut file =
        std::fs::File::options().append(true).create(true).open(folder.join("course")).expect("it can write");
    file.write_all(format!("{line}\n").as_bytes()).expect("it can write");
}

/// The folder of one script.
pub(super) struct Course(PathBuf);

impl Course {
    /// Prepares the options of a host whose handler follows the script.
    pub(super) fn prepare(
        app: &AppFolder,
        options: &mut HostOptions,
        answers: &Answers,
        factor: u32,
        late: u32,
    ) -> Self {
        let folder = app.0.join(".script");
        std::fs::create_dir(&folder).expect("a folder can be made");
        let script = serde_json::to_string(answers).expect("it is JSON");
        std::fs::write(folder.join("script.json"), script).expect("a file can be written");
        let program = std::env::current_exe().expect("this test is a program");
        let name = concat!(module_path!(), "::scripted_process").split_once("::").expect("the crate is a part").1;
        let here = folder.display();
        let start = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > {here}/argv\npwd > {here}/cwd\nenv > {here}/env\n\
             readlink /proc/$$/fd/0 > {here}/stdin\nexec {} --exact {name} --ignored --nocapture\n",
            program.display()
        );
        let handler = folder.join("handler");
        std::fs::write(&handler, start).expect("a file can be written");
        std::fs::set_permissions(&handler, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
        options.executable = Some(handler);
        for (name, value) in [(FOLDER, here.to_string()), (FACTOR, factor.to_string()), (LATE, late.to_string())] {
            options.settings.insert(name.to_owned(), value);
        }
        Self(folder)
    }

    /// What the handler noted about its start.
    pub(super) fn noted(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join(name)).expect("the handler wrote it");
        text.lines().map(str::to_owned).collect()
    }

    /// What happened, with ids in the order of their appearance.
    pub(super) fn so_far(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join("course")).unwrap_or_default();
        let mut ids: Vec<String> = Vec::new();
        let line = |line: &str| {
            let words = line.split(' ').map(|word| match word.strip_prefix('#') {
                Some(id) => {
                    let known = ids.iter().position(|known| known == id).unwrap_or_else(|| {
                        ids.push(id.to_owned());
                        ids.len() - 1
                    });
                    format!("#{}", known + 1)
                }
                None => word.to_owned(),
            });
            words.collect::<Vec<_>>().join(" ")
        };
        text.lines().map(line).collect()
    }

    /// Waits for so many things to have happened, which must be these.
    pub(super) async fn expect(&self, expected: &[String], name: &str) {
        let came = async {
            while self.so_far().len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, came).await;
        assert_eq!(self.so_far(), expected, "{name}, in time: {}", in_time.is_ok());
    }

    /// Waits for a thing that begins so.
    pub(super) async fn until(&self, beginning: &str) {
        let came = async {
            while !self.so_far().iter().any(|line| line.starts_with(beginning)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, came).await.unwrap_or_else(|_| panic!("no {beginning}: {:?}", self.so_far()));
    }
}

/// A recorded course as the handler can tell it: it does not notice that it is killed. Excerpts begin after the start.
pub(super) fn told(timeline: &[String]) -> Vec<String> {
    let start = ["start", "GET /", "answer"].map(str::to_owned);
    let begin = if timeline.first().is_some_and(|line| line == "start") { &[][..] } else { &start[..] };
    begin.iter().chain(timeline.iter().filter(|line| *line != "killed")).cloned().collect()
}

/// Waits until the host stopped by itself.
pub(super) async fn stopped(host: &FunctionsHost) -> bool {
    let stops = async {
        while !host.is_stopped() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stops).await.is_ok()
}
