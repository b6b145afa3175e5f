//! A host with a handler that it starts itself.

use super::*;
use crate::event_hubs::PropertyValue;

/// Not a test: the handler that the tests below start, in this same program.
#[tokio::test]
#[ignore = "runs as the handler of other tests"]
async fn handler_process() {
    let Ok(port) = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT") else { return };
    println!("settings {:?}", std::env::vars().map(|(name, _)| name).collect::<Vec<_>>());
    let addr: SocketAddr = format!("127.0.0.1:{port}").parse().expect("the host gives a port");
    let listener = TcpListener::bind(addr).await.expect("the port is free");
    let pid = std::process::id();
    let instances = std::env::current_dir().expect("the app is there");
    let router = Router::new().fallback(async move |request: Request| {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.expect("whole bodies come").to_bytes();
        let hangs = {
            // The first process that gets it keeps it.
            let is_marked = String::from_utf8_lossy(&body).contains("Imhhbmcgb25jZSI=");
            is_marked && std::fs::File::create_new(instances.join("hung")).is_ok()
        };
        match path.as_str() {
            "/EventHubForwarder" => println!("batch in {pid}"),
            "/api/uplink" => println!("call in {pid}"),
            _ => {}
        }
        if hangs {
            std::future::pending::<()>().await;
        }
        match path.as_str() {
            "/api/uplink/exit" => std::process::exit(1),
            "/api/uplink/hang" => std::future::pending().await,
            "/EventHubForwarder" if dies(&body) => std::process::exit(1),
            _ => ([(CONTENT_TYPE, "application/json")], "{}").into_response(),
        }
    });
    axum::serve(listener, router).await.expect("it can serve");
}

/// The first attempt of an event that says so ends the handler.
fn dies(envelope: &Bytes) -> bool {
    let metadata = metadata(envelope);
    metadata["PropertiesArray"].as_str().is_some_and(|all| all.contains("\"dies\":true"))
        && metadata["RetryContext"]["RetryCount"] == 0
}

pub(super) async fn start_process(app: &AppFolder, namespace: &Namespace) -> FunctionsHost {
    let mut options = options(app, namespace);
    options.executable = Some(std::env::current_exe().expect("this test is a program"));
    options.settings.insert("ONE_SETTING".to_owned(), "1".to_owned());
    FunctionsHost::start(options).await.expect("the app is fine")
}

pub(super) const AS_HANDLER: [&str; 4] =
    ["--exact", "functions_host::tests::process::handler_process", "--ignored", "--nocapture"];

#[tokio::test]
async fn a_handler_that_dies_in_a_batch_is_started_again_and_gets_the_retry() {
    let app = AppFolder::new(host_json("00:00:30", &AS_HANDLER), &[uplink(), forwarder(-1)]);
    let namespace = Namespace::new(&[("stack-events", 1)]);
    let properties = [("dies".into(), PropertyValue::Bool(true))].into();
    let hub = namespace.hub("stack-events").expect("it was just made");
    hub.append(Event { body: "{}".into(), properties, ..Event::default() });
    let host = start_process(&app, &namespace).await;
    assert!(host.wait_idle(PATIENCE).await);
    let counters = host.counters();
    assert_eq!((counters.restarts, counters.retries, counters.events_delivered), (1, 1, 1));
    let lines = host.handler_log();
    let settings = lines.iter().find(|line| line.contains("settings [")).expect("the handler wrote a line");
    for name in ["ONE_SETTING", "FUNCTIONS_HTTPWORKER_PORT", "FUNCTIONS_APP_ROOT_PATH", "PATH"] {
        assert!(settings.contains(&format!("\"{name}\"")), "{name}");
    }
    assert!(!settings.contains("CARGO"), "the rest of the environment is not inherited");

    assert!(host.wait_ready().await);
    let pid = host.handler_pid().expect("it runs");
    drop(host);
    tokio::time::timeout(PATIENCE, async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the handler is killed with the host");
}

#[tokio::test]
async fn a_function_timeout_kills_the_handler_and_does_not_count_as_an_error() {
    let app = AppFolder::new(host_json("00:00:01", &AS_HANDLER), &[uplink()]);
    let host = start_process(&app, &Namespace::new(&[])).await;
    let client = reqwest::Client::new();
    let post = |path: &str| {
        client.post(format!("{}{path}", host.base_url())).header("x-functions-key", "key").body("{}").send()
    };
    assert_eq!(post("/uplink/a").await.expect("the host answers").status(), StatusCode::OK);
    let first = host.handler_pid();
    let answer = post("/uplink/hang").await.expect("the host answers");
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(post("/uplink/a").await.expect("the host answers").status(), StatusCode::OK);
    assert_ne!(host.handler_pid(), first);
    assert_eq!(host.counters().restarts, 1);

    let answer = post("/uplink/exit").await.expect("the host answers");
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    host.kill_handler();
    assert_eq!(post("/uplink/a").await.expect("the host answers").status(), StatusCode::OK);
    assert_eq!(host.counters().restarts, 3);
    host.shutdown().await;
    assert!(host.is_stopped());
    assert_eq!(host.handler_pid(), None);
}

#[tokio::test]
async fn the_third_error_stops_the_host_but_exit_code_0_never_does() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[uplink()]);
    let namespace = Namespace::new(&[]);
    for (script, stops) in [("#!/bin/sh\nexit 1\n", true), ("#!/bin/sh\nexit 0\n", false)] {
        let mut options = options(&app, &namespace);
        options.executable = Some(app.script(script));
        let host = FunctionsHost::start(options).await.expect("the app is fine");
        tokio::time::timeout(PATIENCE, async {
            while !host.is_stopped() && host.counters().restarts < 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("it is one or the other");
        assert_eq!(host.is_stopped(), stops);
        assert_eq!(host.counters().restarts, if stops { 2 } else { 5 });
    }
}
