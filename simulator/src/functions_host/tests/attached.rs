//! A host with a handler that the tests script, attached by its port.

use super::*;

#[tokio::test]
async fn a_retry_keeps_the_invocation_id_and_the_checkpoint_follows_the_success() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[uplink(), forwarder(-1)]);
    let namespace = namespace_with(3);
    let script = Script::default();
    script.answer(&[(StatusCode::SERVICE_UNAVAILABLE, ""), (StatusCode::OK, "[]"), (StatusCode::OK, "{}")]);
    let mut options = options(&app, &namespace);
    options.external_port = Some(script.serve().await);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert_eq!(host.lag("stack-events", "forwarder"), 3);
    assert!(host.wait_idle(PATIENCE).await);

    let calls = script.calls();
    let ids: Vec<_> = calls.iter().map(|(_, headers, _)| headers["x-azure-functions-invocationid"].clone()).collect();
    assert_eq!(calls.len(), 4, "two events three times, then the third event");
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3]);
    for (tries, (path, _, body)) in calls[..3].iter().enumerate() {
        assert_eq!(path, "/EventHubForwarder");
        let metadata = metadata(body);
        assert_eq!(metadata["SequenceNumberArray"], "[0,1]");
        assert_eq!(metadata["PartitionContext"]["EventHubName"], "stack-events");
        assert_eq!(metadata["RetryContext"]["RetryCount"], tries);
        assert_eq!(metadata["RetryContext"]["Exception"].is_null(), tries == 0);
    }
    let counters = host.counters();
    assert_eq!((counters.batches, counters.retries, counters.checkpoints, counters.events_delivered), (2, 2, 2, 3));
    assert_eq!(host.lag("stack-events", "forwarder"), 0);
}

#[tokio::test]
async fn after_the_last_retry_the_batch_is_checkpointed_and_lost() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[forwarder(1)]);
    let namespace = namespace_with(2);
    let script = Script::default();
    script.answer(&[(StatusCode::INTERNAL_SERVER_ERROR, ""), (StatusCode::NOT_FOUND, "")]);
    let mut options = options(&app, &namespace);
    options.external_port = Some(script.serve().await);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    assert!(host.wait_idle(PATIENCE).await);
    assert_eq!(script.calls().len(), 2);
    assert_eq!((host.counters().events_delivered, host.counters().checkpoints), (0, 1));
}

#[tokio::test]
async fn a_lost_instance_delivers_the_same_batch_under_a_new_id() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[forwarder(-1)]);
    let namespace = namespace_with(1);
    let script = Script::default();
    // An empty answer is never noticed.
    script.answer(&[(StatusCode::OK, "")]);
    let mut options = options(&app, &namespace);
    options.external_port = Some(script.serve().await);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    while script.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!host.wait_idle(Duration::from_millis(300)).await, "it waits for functionTimeout");
    assert_eq!(host.lag("stack-events", "forwarder"), 1);
    host.lose_instance();
    assert!(host.wait_idle(PATIENCE).await);
    let calls = script.calls();
    let id = |at: usize| calls[at].1["x-azure-functions-invocationid"].clone();
    assert_eq!(calls.len(), 2);
    assert_ne!(id(0), id(1));
    assert_eq!(metadata(&calls[1].2)["RetryContext"]["RetryCount"], 0);
}

#[tokio::test]
async fn the_proxy_sets_its_own_headers_whatever_the_caller_sends() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[uplink()]);
    let script = Script::default();
    let mut options = options(&app, &Namespace::new(&[]));
    let port = script.serve().await;
    options.external_port = Some(port);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    let client = reqwest::Client::new();
    let call = |path: &str| client.post(format!("{}{path}", host.base_url())).body("{\"a\":1}");
    let made_up = "client-made-up";
    let answer = call("/UPLINK/a%2Fb/?x=%2F&a=1&a=2")
        .header("x-functions-key", "key")
        .header("host", "example.org:7071")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-host", made_up)
        .header("x-forwarded-proto", "https")
        .header("forwarded", "for=203.0.113.9")
        .header("x-ms-invocation-id", made_up)
        .header("x-azure-functions-invocationid", made_up)
        .header("x-azure-functions-hostversion", "9.9")
        .header("te", "trailers")
        .header("x-dup", "one")
        .header("x-dup", "two")
        .header("content-language", "de")
        .header("authorization", "Bearer abc")
        .send()
        .await
        .expect("the host answers");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["server"], "Kestrel");

    let calls = script.calls();
    let (path, headers, body) = &calls[0];
    assert_eq!(path, "/api/UPLINK/a%252Fb/?x=%2F&a=1&a=2");
    assert_eq!(body, "{\"a\":1}");
    for (name, value) in [
        ("host", format!("127.0.0.1:{port}").as_str()),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "example.org:7071"),
        ("x-forwarded-proto", "http"),
        ("x-azure-functions-hostversion", "4.1037.0.0"),
        ("x-functions-key", "key"),
        ("x-dup", "one, two"),
        ("content-language", "de"),
        ("content-length", "7"),
        ("authorization", "Bearer abc"),
    ] {
        assert_eq!(headers[name], value, "{name}");
        assert_eq!(headers.get_all(name).iter().count(), 1, "{name}");
    }
    let id = &headers["x-azure-functions-invocationid"];
    assert_ne!(id, made_up);
    assert_eq!(&headers["x-ms-invocation-id"], id);
    for name in ["forwarded", "te", "connection", "transfer-encoding"] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn keys_methods_and_routes_are_checked_before_the_handler_is_called() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[uplink()]);
    let script = Script::default();
    let mut options = options(&app, &Namespace::new(&[]));
    options.external_port = Some(script.serve().await);
    let host = FunctionsHost::start(options).await.expect("the app is fine");
    let client = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", host.base_url());
    for (request, status) in [
        (client.post(url("/uplink")), 401),
        (client.post(url("/uplink")).header("x-functions-key", "wrong"), 401),
        (client.post(url("/uplink?code=wrong")), 401),
        (client.get(url("/uplink?code=key")), 404),
        (client.post(url("/other?code=key")), 404),
        (client.post(url("/uplink/a/b?code=key")), 404),
    ] {
        let answer = request.send().await.expect("the host answers");
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.bytes().await.expect("the body comes"), "");
    }
    assert_eq!((script.calls().len(), host.counters().http_calls), (0, 0));
    script.answer(&[(StatusCode::IM_A_TEAPOT, "passed on")]);
    let answer = client.post(url("/uplink?code=key")).send().await.expect("the host answers");
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(answer.text().await.expect("the body comes"), "passed on");
    assert_eq!(script.calls()[0].1["content-length"], "0");
}

#[tokio::test]
async fn the_head_and_the_chunks_of_an_envelope_are_as_recorded() {
    let app = AppFolder::new(host_json("00:00:30", &[]), &[forwarder(-1)]);
    let namespace = namespace_with(2);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let mut options = options(&app, &namespace);
    options.external_port = Some(port);
    let _host = FunctionsHost::start(options).await.expect("the app is fine");
    let (mut ping, _) = listener.accept().await.expect("the host comes");
    let first = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let mut read = vec![0; first.len()];
    ping.read_exact(&mut read).await.expect("the host asks");
    assert_eq!(String::from_utf8_lossy(&read), first);
    ping.write_all(b"garbage").await.expect("the host reads");
    let (mut call, _) = listener.accept().await.expect("the host comes again");
    let mut text = String::new();
    let mut part = [0; 4096];
    while !text.ends_with("\r\n0\r\n\r\n") {
        let count = call.read(&mut part).await.expect("the host sends");
        text.push_str(&String::from_utf8_lossy(&part[..count]));
    }
    let (head, body) = text.split_once("\r\n\r\n").expect("there is a head");
    let names: Vec<_> = head.lines().skip(1).map(|line| line.split(':').next().unwrap_or_default()).collect();
    let recorded = [
        "Host",
        "X-Azure-Functions-HostVersion",
        "X-Azure-Functions-InvocationId",
        "User-Agent",
        "Transfer-Encoding",
        "Content-Type",
    ];
    assert_eq!(names, recorded);
    assert!(head.starts_with("POST /EventHubForwarder HTTP/1.1\r\n"));
    assert!(head.contains("User-Agent: Azure-Functions-Host/4.1037.0.0\r\n"));
    assert!(body.starts_with("400\r\n{\"Data\":{\"events\":\"[\\\"eyJuIjowfQ==\\\","));
}
