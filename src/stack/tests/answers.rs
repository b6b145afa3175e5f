//! Whether the servers are there.

use serde_json::json;

use super::{error, start};

#[tokio::test]
async fn the_stack_answers_only_if_each_server_does_so_itself() {
    let lines = ["", "js/", "ns/", "as/"]
        .map(|server| format!("GET /api/v3/{server}applications/cold-store/devices/tts-iot-hub-probe"));
    let unknown = || error(5, "pkg/redis", "not_found");
    let (server, stack) = start().await;
    for line in &lines {
        server.answer(line, 404, unknown());
    }
    assert!(stack.answers().await);
    let asked = server.lines();
    assert!(lines.iter().all(|line| asked.contains(line)), "{asked:?}");

    let no_answers = [
        (404, json!({"code": 5, "message": "Not Found"})),
        (403, error(7, "pkg/auth/rights", "insufficient_application_rights")),
        (429, error(8, "pkg/ratelimit", "rate_limit_exceeded")),
        (502, json!({})),
        (503, error(14, "pkg/somewhere", "something")),
    ];
    // One bad answer is enough, whichever server gives it: the others are left at their 200.
    for ((status, body), line) in no_answers.into_iter().zip(lines.iter().cycle()) {
        let (server, stack) = start().await;
        server.answer(line, status, body);
        assert!(!stack.answers().await, "{line} {status}");
    }
}
