//! Why an attempt failed, and the serialised .NET exception that the next attempt finds in its `RetryContext`.

use std::time::Duration;

use super::json::Json;
use super::time_span;

/// `HResult` of `System.Exception`.
const GENERIC: i64 = -2_146_233_088;
/// `HResult` of `System.IO.IOException`.
const IO: i64 = -2_146_232_800;
/// `HResult` of `System.InvalidOperationException`.
const INVALID_OPERATION: i64 = -2_146_233_079;
/// `HttpRequestError.ResponseEnded`.
const RESPONSE_ENDED: i64 = 10;

/// Frames as a real trace has them; handlers take exceptions as opaque.
const STACK: &str = concat!(
    "   at Microsoft.Azure.WebJobs.Script.Workers.Http.DefaultHttpWorkerService.ProcessDefaultInvocationRequest",
    "(ScriptInvocationContext scriptInvocationContext)\n",
    "   at Microsoft.Azure.WebJobs.Script.Description.WorkerFunctionInvoker.InvokeCore",
    "(Object[] parameters, FunctionInvocationContext context)\n",
    "   at Microsoft.Azure.WebJobs.Host.Executors.FunctionExecutor.ExecuteWithLoggingAsync(IFunctionInstanceEx ",
    "instance, FunctionStartedMessage message, FunctionInstanceLogEntry instanceLogEntry, ParameterHelper ",
    "parameterHelper, ILogger logger, CancellationToken cancellationToken)",
);

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection, or it ended without an answer.
    NoAnswer,
    /// An answer that is not 2xx, with its reason phrase.
    Status(u16, String),
    /// A 2xx answer that is no JSON object with a JSON content type.
    Invalid,
    /// `functionTimeout`.
    Timeout(Duration),
    /// The events do not become what this parameter wants: the function is not called.
    Binding(String),
}

impl Failure {
    /// For the host's log: no payload in it.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::NoAnswer => "an error occurred while sending the request".to_owned(),
            Self::Status(code, reason) => status_message(*code, reason),
            Self::Invalid => "invalid answer: not a JSON object with a JSON content type".to_owned(),
            Self::Timeout(span) => format!("timeout value of {} was exceeded", time_span::format(*span)),
            Self::Binding(name) => format!("exception binding parameter '{name}'"),
        }
    }

    /// The member `Exception` of the next attempt's retry context.
    pub(super) fn exception(&self, function: &str, invocation_id: &str) -> Json {
        let (class, method, message, source) = match self {
            Self::Timeout(span) => (
                "FunctionTimeoutException",
                format!("Functions.{function}"),
                format!("Timeout value of {} was exceeded by function: Functions.{function}", time_span::format(*span)),
                "Microsoft.Azure.WebJobs.Host",
            ),
            _ => (
                "FunctionInvocationException",
                format!("Host.Functions.{function}"),
                format!("Exception while executing function: Functions.{function}"),
                "System.Private.CoreLib",
            ),
        };
        let timeout = match self {
            Self::Timeout(span) => Some(("Timeout".to_owned(), time_span::format(*span).into())),
            _ => None,
        };
        let members = [
            ("InstanceId", invocation_id.into()),
            ("MethodName", method.into()),
            ("Handled", Json::Bool(false)),
            ("ClassName", format!("Microsoft.Azure.WebJobs.Host.{class}").into()),
            ("Message", message.into()),
            ("Data", Json::Null),
            ("InnerException", self.inner()),
            ("HelpURL", Json::Null),
            ("StackTraceString", STACK.into()),
            ("RemoteStackTraceString", Json::Null),
            ("RemoteStackIndex", Json::Int(0)),
            ("ExceptionMethod", Json::Null),
            ("HResult", Json::Int(GENERIC)),
            ("Source", source.into()),
            ("WatsonBuckets", Json::Null),
        ];
        let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
        Json::Object(timeout.into_iter().chain(members).collect())
    }

    fn inner(&self) -> Json {
        match self {
            Self::Timeout(_) => Json::Null,
            Self::Binding(name) => {
                let message = format!("Exception binding parameter '{name}'");
                nested([], &message, Json::Null, "Microsoft.Azure.WebJobs.Host", INVALID_OPERATION)
            }
            Self::Status(code, reason) => {
                let first = [("HttpRequestError", Json::Int(0)), ("StatusCode", Json::Int(i64::from(*code)))];
                nested(first, &status_message(*code, reason), Json::Null, "System.Net.Http", GENERIC)
            }
            Self::NoAnswer => {
                let ended = "The response ended prematurely. (ResponseEnded)";
                let error = Json::Int(RESPONSE_ENDED);
                let cause = nested([("HttpRequestError", error.clone())], ended, Json::Null, "System.Net.Http", IO);
                let first = [("HttpRequestError", error), ("StatusCode", Json::Null)];
                nested(first, "An error occurred while sending the request.", cause, "System.Net.Http", IO)
            }
            Self::Invalid => {
                let source = "Microsoft.Azure.WebJobs.Script.Grpc";
                nested([], "Invalid HttpResponseMessage", Json::Null, source, INVALID_OPERATION)
            }
        }
    }
}

fn status_message(code: u16, reason: &str) -> String {
    format!("Response status code does not indicate success: {code} ({reason}).")
}

fn nested<const N: usize>(first: [(&str, Json); N], message: &str, inner: Json, source: &str, code: i64) -> Json {
    let rest = [
        ("Message", message.into()),
        ("Data", Json::Object(Vec::new())),
        ("InnerException", inner),
        ("HelpLink", Json::Null),
        ("Source", source.into()),
        ("HResult", Json::Int(code)),
        ("StackTrace", STACK.into()),
    ];
    Json::Object(first.into_iter().chain(rest).map(|(name, value)| (name.to_owned(), value)).collect())
}
