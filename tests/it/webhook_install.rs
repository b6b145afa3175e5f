//! `tts-iot-hub webhook install`, against The Things Stack.

use std::process::Output;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::stack::{MESSAGE_TYPES, Stack, StackOptions};

use crate::support::*;

const APPLICATION: &str = "greenhouse";
const KEY: &str = "NNSXS.SIMULATEDKEY.SIMULATEDSECRET";
const URL: &str = "https://app.azurewebsites.net/api/uplink";
const BASE_URL: &str = "https://app.azurewebsites.net/api/uplink{/devID}";
const FUNCTION_KEY: &str = "f-s3cret-f";
const WEBHOOK_SECRET: &str = "w-s3cret-w";

struct Bench(Stack);

impl Bench {
    async fn start() -> Self {
        Self(Stack::start(StackOptions::default()).await.expect("a free port"))
    }

    /// Runs the command with these arguments, and with changes to its variables.
    async fn install(&self, arguments: &[&str], changes: &[(&str, &str)]) -> Ran {
        let url = self.0.base_url();
        let settings = [
            ("STACK_BASE_URL", url.as_str()),
            ("STACK_APPLICATION_ID", APPLICATION),
            ("STACK_API_KEY", KEY),
            ("WEBHOOK_SECRET", WEBHOOK_SECRET),
            ("FUNCTION_KEY", FUNCTION_KEY),
        ];
        run(arguments, settings.iter().chain(changes).copied()).await
    }

    async fn api(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}/api/v3/as/webhooks/{APPLICATION}{path}", self.0.base_url());
        let mut request = reqwest::Client::new().request(method, url).bearer_auth(KEY);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// The webhook as the API shows it; `None` if there is none.
    async fn webhook(&self) -> Option<Value> {
        let fields = format!("headers,downlink_api_key,field_mask,paused,{}", MESSAGE_TYPES.join(","));
        let (status, webhook) = self.api(Method::GET, &format!("/tts-iot-hub?field_mask={fields}"), None).await;
        (status == 200).then_some(webhook)
    }

    /// Writes fields of the webhook as someone else would.
    async fn put(&self, webhook: Value) {
        let paths: Vec<_> = webhook.as_object().expect("an object").keys().cloned().collect();
        let body = json!({"webhook": webhook, "field_mask": {"paths": paths}});
        assert_eq!(self.api(Method::PUT, "/tts-iot-hub", Some(body)).await.0, 200);
    }
}

/// How the command ended, and what it said.
#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

async fn run(arguments: &[&str], settings: impl Iterator<Item = (&str, &str)>) -> Ran {
    let mut command = tokio::process::Command::new(handler());
    command.args(["webhook", "install"]).args(arguments).env_clear().envs(settings);
    let Output { status, stdout, stderr } = command.output().await.expect("the binary runs");
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    for text in [&out, &err] {
        assert!(!text.contains("s3cret") && !text.contains("SIMULATEDSECRET"), "no secret is shown: {text}");
    }
    Ran { status: status.code(), out, err }
}

#[tokio::test]
async fn a_dry_run_shows_what_it_would_do_and_changes_nothing() {
    let bench = Bench::start().await;
    let ran = bench.install(&["--dry-run", "--url", URL], &[]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    for told in ["webhook `tts-iot-hub` of application `greenhouse`", "create", BASE_URL, "x-functions-key", "dry run"]
    {
        assert!(ran.out.contains(told), "{told} in {ran:?}");
    }
    assert_eq!(bench.webhook().await, None);
}

#[tokio::test]
async fn a_webhook_that_is_missing_is_created_and_then_left_alone() {
    let bench = Bench::start().await;
    let ran = bench.install(&["--url", URL], &[]).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert!(ran.out.contains("create") && ran.out.contains("{/devID}` is added"), "{ran:?}");
    let webhook = bench.webhook().await.expect("created");
    assert_eq!((&webhook["base_url"], &webhook["format"]), (&json!(BASE_URL), &json!("json")));
    let headers = json!({"x-functions-key": FUNCTION_KEY, "X-Webhook-Secret": WEBHOOK_SECRET});
    assert_eq!(webhook["headers"], headers);
    assert!(MESSAGE_TYPES.iter().all(|kind| webhook[kind] == json!({})), "all types, with empty paths: {webhook}");

    let again = bench.install(&["--url", BASE_URL], &[]).await;
    assert!(again.status == Some(0) && again.out.contains("unchanged"), "{again:?}");
    assert_eq!(bench.webhook().await, Some(webhook), "not even its time of update");
}

#[tokio::test]
async fn a_webhook_that_differs_is_brought_up_to_date_and_what_is_not_ours_stays() {
    let bench = Bench::start().await;
    assert_eq!(bench.install(&["--url", URL], &[]).await.status, Some(0));
    bench
        .put(json!({
            "base_url": "https://old.example.net/hook?code=s3cret",
            "headers": {"Authorization": "Basic s3cret", "X-Functions-Key": "old-s3cret"},
            "join_accept": {"path": "/join"},
            "service_data": null,
            "downlink_api_key": "NNSXS.OTHER.S3CRET",
            "field_mask": {"paths": ["end_device_ids", "received_at", "up"]},
            "paused": true,
        }))
        .await;
    let before = bench.webhook().await.expect("there");
    let dry = bench.install(&["--url", URL, "--dry-run"], &[]).await;
    let told = [
        "update",
        "(was https://old.example.net/…)",
        "header x-functions-key: another value",
        "header X-Webhook-Secret: added",
        "path of join_accept: emptied",
        "message type service_data: enabled",
        "note: it is paused",
        "note: its field mask hides correlation_ids",
    ];
    for told in told {
        assert!(dry.out.contains(told), "{told} in {dry:?}");
    }
    assert_eq!(bench.webhook().await.as_ref(), Some(&before), "a dry run");

    let ran = bench.install(&["--url", URL], &[]).await;
    assert!(ran.status == Some(0) && ran.out.contains("done"), "{ran:?}");
    let after = bench.webhook().await.expect("there");
    assert_eq!(after["base_url"], BASE_URL);
    let headers =
        json!({"Authorization": "Basic s3cret", "x-functions-key": FUNCTION_KEY, "X-Webhook-Secret": WEBHOOK_SECRET});
    assert_eq!(after["headers"], headers);
    assert!(MESSAGE_TYPES.iter().all(|kind| after[kind] == json!({})), "{after}");
    for kept in ["downlink_api_key", "field_mask", "paused", "created_at"] {
        assert_eq!(after[kept], before[kept], "{kept}");
    }
}

#[tokio::test]
async fn a_key_that_lacks_a_right_is_told_which_and_where_to_add_it() {
    for right in
        ["RIGHT_APPLICATION_SETTINGS_BASIC", "RIGHT_APPLICATION_TRAFFIC_READ", "RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE"]
    {
        let bench = Bench::start().await;
        assert!(bench.0.take_right(right));
        for arguments in [&["--url", URL, "--dry-run"][..], &["--url", URL]] {
            let ran = bench.install(arguments, &[]).await;
            assert_eq!((ran.status, ran.out.as_str()), (Some(1), ""), "{ran:?}");
            assert!(
                ran.err.contains(&format!("the API key lacks {right} (")) && ran.err.contains("API keys"),
                "{ran:?}"
            );
        }
    }
    // The bridge's other rights are not asked for.
    let bench = Bench::start().await;
    for right in ["RIGHT_APPLICATION_DEVICES_WRITE", "RIGHT_APPLICATION_DEVICES_WRITE_KEYS"] {
        assert!(bench.0.take_right(right));
    }
    assert_eq!(bench.install(&["--url", URL], &[]).await.status, Some(0));
}

#[tokio::test]
async fn a_key_of_another_application_or_of_nobody_is_refused() {
    let bench = Bench::start().await;
    let other = bench.install(&["--url", URL], &[("STACK_APPLICATION_ID", "cold-store")]).await;
    assert_eq!(other.status, Some(1), "{other:?}");
    assert!(other.err.contains("belongs to application `greenhouse`"), "{other:?}");
    for key in ["NNSXS.UNKNOWN.S3CRET", "NNSXS.SIMULATEDKEY.WRONG"] {
        let ran = bench.install(&["--url", URL], &[("STACK_API_KEY", key)]).await;
        assert!(ran.status == Some(1) && ran.err.contains("check STACK_API_KEY"), "{ran:?}");
        assert!(
            ran.err.contains("the Identity Server 127.0.0.1:") && ran.err.contains("STACK_IDENTITY_URL"),
            "{ran:?}"
        );
    }
    assert_eq!(bench.webhook().await, None);
}

#[tokio::test]
async fn a_key_of_a_user_who_has_the_rights_is_as_good_as_one_of_the_application() {
    const RIGHTS: [&str; 3] =
        ["RIGHT_APPLICATION_SETTINGS_BASIC", "RIGHT_APPLICATION_TRAFFIC_READ", "RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE"];
    let bench = Bench::start().await;
    for (id, rights, refusal) in [
        ("NOTHING", &RIGHTS[..0], Some("has no rights for application `greenhouse`")),
        ("TOOLITTLE", &RIGHTS[..2], Some("the API key lacks RIGHT_APPLICATION_TRAFFIC_DOWN_WRITE")),
        ("ENOUGH", &RIGHTS[..], None),
    ] {
        bench.0.add_user_key("jo", id, "s3cret", rights);
        let ran = bench.install(&["--url", URL], &[("STACK_API_KEY", &format!("NNSXS.{id}.s3cret"))]).await;
        match refusal {
            Some(why) => assert!(ran.status == Some(1) && ran.err.contains(why), "{ran:?}"),
            None => assert!(ran.status == Some(0) && ran.out.contains("done"), "{ran:?}"),
        }
    }
    assert!(bench.webhook().await.is_some());
}

#[tokio::test]
async fn without_the_shared_secret_its_header_is_left_alone_and_that_is_said() {
    let bench = Bench::start().await;
    let nothing = [("WEBHOOK_SECRET", "")];
    let ran = bench.install(&["--url", URL], &nothing).await;
    assert!(ran.status == Some(0) && ran.out.contains("the header X-Webhook-Secret is not set"), "{ran:?}");
    assert_eq!(bench.webhook().await.expect("created")["headers"], json!({"x-functions-key": FUNCTION_KEY}));
    let with_secret = bench.install(&["--url", URL], &[]).await;
    assert!(with_secret.status == Some(0) && !with_secret.out.contains("WEBHOOK_SECRET"), "{with_secret:?}");
    let ran = bench.install(&["--url", URL], &nothing).await;
    assert!(ran.status == Some(0) && ran.out.contains("X-Webhook-Secret stays as it is"), "{ran:?}");
    assert_eq!(bench.webhook().await.expect("there")["headers"]["X-Webhook-Secret"], WEBHOOK_SECRET);
}

#[tokio::test]
async fn wrong_settings_and_arguments_are_told_at_once_without_their_secrets() {
    let nothing = run(&["--url", "http://app.example.net/api/uplink"], std::iter::empty()).await;
    assert_eq!(nothing.status, Some(2), "{nothing:?}");
    for told in [
        "STACK_BASE_URL: is missing",
        "STACK_APPLICATION_ID: is missing",
        "STACK_API_KEY: is missing",
        "FUNCTION_KEY: is missing; without it the Functions host refuses every webhook; fetch it with `az functionapp function keys list",
        "--url: what devices send and the function key would travel unprotected",
    ] {
        assert!(nothing.err.contains(told), "{told} in {nothing:?}");
    }
    let bench = Bench::start().await;
    for arguments in [
        &["--url", "https://app.example.net/api/uplink?code=f-s3cret-f"][..],
        &["--url", URL, "--id", "Not An Id"],
        &["--id", "tts-iot-hub"],
        &["--url", URL, "--force"],
        &["--url", URL, "f-s3cret-f"],
        &["--url", URL, "--", "f-s3cret-f"],
    ] {
        let ran = bench.install(arguments, &[]).await;
        assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""), "{ran:?}");
    }
    let nowhere = bench.install(&["--url", URL], &[("STACK_BASE_URL", "http://127.0.0.1:1")]).await;
    assert!(nowhere.status == Some(1) && nowhere.err.contains("no answer from The Things Stack"), "{nowhere:?}");
}

#[tokio::test]
async fn what_an_installed_webhook_sends_arrives_in_the_hub() {
    let world = world().await;
    let (url, [(_, function_key), (_, secret)]) = world.webhook();
    let settings = [
        ("STACK_BASE_URL", world.settings["STACK_BASE_URL"].as_str()),
        ("STACK_APPLICATION_ID", &world.settings["STACK_APPLICATION_ID"]),
        ("STACK_API_KEY", &world.settings["STACK_API_KEY"]),
        ("WEBHOOK_SECRET", secret),
        ("FUNCTION_KEY", function_key),
    ];
    let ran = run(&["--url", &url, "--id", "by-command"], settings.into_iter()).await;
    assert_eq!(ran.status, Some(0), "{ran:?}");
    for value in [function_key, secret, settings[2].1] {
        assert!(!ran.out.contains(value) && !ran.err.contains(value), "{ran:?}");
    }
    world.stack.send(&uplink("probe-0001", 1, &json!({"n": 1}))).await;
    // The world has a webhook of its own: one of the two is the second.
    expect("both webhooks answered", || {
        let outcomes = world.stack.counters().outcomes;
        ["delivered", "duplicate"].iter().all(|outcome| outcomes.get(*outcome) == Some(&1))
    })
    .await;
    assert_eq!(telemetry(&world).len(), 1);
}
