//! Settings are checked at start, all at once.

use std::process::{Command, Output};

use crate::support::handler;

fn serve(settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(handler());
    command.arg("serve").env_clear().envs(settings.iter().copied());
    command.output().expect("the binary runs")
}

#[test]
fn missing_settings_are_listed_in_one_message_and_the_exit_status_tells() {
    let output = serve(&[]);
    assert_eq!(output.status.code(), Some(2), "settings must be mended");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    for name in [
        "FUNCTIONS_CUSTOMHANDLER_PORT",
        "STACK_BASE_URL",
        "STACK_APPLICATION_ID",
        "STACK_API_KEY",
        "IOTHUB_HOSTNAME",
        "IOTHUB_POLICY_NAME",
        "IOTHUB_POLICY_KEY",
        "StackEvents",
    ] {
        assert!(text.contains(&format!("- {name}: is missing")), "{name} in\n{text}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_settings_are_listed_with_their_remedies_and_without_their_secrets() {
    let output = serve(&[
        ("FUNCTIONS_CUSTOMHANDLER_PORT", "none"),
        ("STACK_BASE_URL", "http://stack.example"),
        ("STACK_APPLICATION_ID", "Not An Id"),
        ("STACK_API_KEY", "s3cret-without-dots"),
        ("IOTHUB_CONNECTION_STRING", "HostName=h.azure-devices.net;SharedAccessKeyName=p;SharedAccessKey=s3cret"),
        ("StackEvents", "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/s)"),
        ("TELEMETRY_BODY", "short"),
        ("IOTHUB_UNITS", "0"),
        ("TWIN_MESSAGES", "uplink_message,uplink"),
        ("LOG_LEVEL", "info,tts_iot_hub=loud"),
    ]);
    assert_eq!(output.status.code(), Some(2), "settings must be mended");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    for line in [
        "FUNCTIONS_CUSTOMHANDLER_PORT: `none` is no port",
        "STACK_BASE_URL: http:// would send the API key unprotected; use https",
        "STACK_APPLICATION_ID: `Not An Id` is no application id",
        "STACK_API_KEY: is no API key",
        "IOTHUB_CONNECTION_STRING: its key is not base64",
        "StackEvents: the Key Vault reference was not resolved",
        "TELEMETRY_BODY: `short` is none of `full`, `compact`",
        "IOTHUB_UNITS: `0` is no whole number from 1 to 200",
        "TWIN_MESSAGES: `uplink` is no message type",
        "LOG_LEVEL: is neither a level",
    ] {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn what_is_no_matter_of_settings_has_another_exit_status() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = serve(&[
        ("FUNCTIONS_CUSTOMHANDLER_PORT", &port),
        ("STACK_BASE_URL", "https://stack.example"),
        ("STACK_APPLICATION_ID", "cold-store"),
        ("STACK_API_KEY", "NNSXS.A.B"),
        (
            "IOTHUB_CONNECTION_STRING",
            "HostName=h.azure-devices.net;SharedAccessKeyName=p;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==",
        ),
        (
            "StackEvents",
            "Endpoint=sb://n.servicebus.windows.net/;SharedAccessKeyName=p;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==",
        ),
    ]);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("listen on 127.0.0.1:{port}")), "{text}");
}

#[test]
fn a_reader_that_has_gone_away_is_a_failure_and_no_panic() {
    for argument in ["settings", "version"] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(handler());
        let output = command.arg(argument).stdout(writer).stderr(std::process::Stdio::piped()).output();
        let output = output.expect("the binary runs");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("write to standard output") && !text.contains("panicked"), "{text}");
    }
}
