//! `webhook install`: creates the webhook in The Things Stack, or brings it up to date.
//!
//! | module | what it is |
//! |---|---|
//! | `address` | the function's address → the webhook's base URL |
//! | `rights` | whether the API key may do this |
//! | `plan` | pure: the webhook as it is and as it shall be → what to write |
//! | `notes` | pure: what a person should know of a webhook that is left as it is |

mod address;
mod notes;
mod plan;
mod rights;

use std::io::Write;

use clap::{Args, Subcommand};

use super::Failure;
use crate::config::{Problems, WebhookInstallConfig};
use crate::ids::WebhookId;
use crate::stack::{Stack, StackError};
use address::Address;
use plan::{Plan, Wanted};

/// What can be done about the webhook.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create the webhook, or bring it up to date.
    ///
    /// Reads STACK_BASE_URL, STACK_IDENTITY_URL, STACK_APPLICATION_ID, STACK_API_KEY and WEBHOOK_SECRET as the bridge does, and the
    /// function key of UplinkIngress from the variable FUNCTION_KEY. Shows what it changes, and no secret.
    Install(Install),
}

/// Arguments of `webhook install`. None of them is a secret.
#[derive(Args, Debug)]
pub struct Install {
    /// Show what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Id of the webhook.
    #[arg(long, value_name = "ID", default_value = "tts-iot-hub", value_parser = WebhookId::parse)]
    id: WebhookId,
    /// Address of the function: https://APP.azurewebsites.net/api/uplink
    // Checked by us: the usual message would repeat it, and someone may have put a key into it.
    #[arg(long, value_name = "URL")]
    url: String,
    // Taken only to be refused by us: the usual message would repeat it, and it may be a key.
    #[arg(hide = true)]
    stray: Vec<String>,
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Does what the arguments say, and tells it.
///
/// # Errors
/// If settings or arguments must be mended, the API key lacks a right, The Things Stack refuses or does not answer, or nobody takes
/// what is told.
pub async fn run(
    command: &Command,
    vars: impl IntoIterator<Item = (String, String)>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let Command::Install(arguments) = command;
    let (config, address) = read(arguments, vars)?;
    let stack = Stack::new(&config.stack)?;
    let application = &config.stack.application_id;
    rights::check(&stack.key_info().await?, application).map_err(Failure::Failed)?;

    let id = &arguments.id;
    writeln!(out, "webhook `{id}` of application `{application}`")?;
    if address.variable_added {
        writeln!(
            out,
            "  `{}` is added to the address: it names the device even where a field mask leaves it out",
            address::VARIABLE
        )?;
    }
    let found = stack.webhook(id).await?;
    let notes = notes::of(&found, config.webhook_secret.is_some());
    let wanted = Wanted::new(address.base_url, config.function_key, config.webhook_secret, found.types);
    let current = found.webhook.as_ref();
    let plan = plan::plan(current, &wanted);
    writeln!(out, "{plan}")?;
    notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))?;
    if arguments.dry_run {
        writeln!(out, "dry run: nothing was changed")?;
        return Ok(());
    }
    if plan == Plan::Unchanged {
        return Ok(());
    }
    stack.set_webhook(id, &plan::update(current, &wanted)).await?;
    let written = stack.webhook(id).await?.webhook;
    match plan::plan(written.as_ref(), &wanted) {
        Plan::Unchanged => Ok(writeln!(out, "done: The Things Stack has it so")?),
        still => Err(Failure::Failed(format!(
            "the webhook `{id}` was written, and reads differently now: {still}\nrun the command again; someone else may be changing it"
        ))),
    }
}

/// Every problem with settings and address at once.
fn read(
    arguments: &Install,
    vars: impl IntoIterator<Item = (String, String)>,
) -> Result<(WebhookInstallConfig, Address), Failure> {
    if !arguments.stray.is_empty() {
        let problem = "something stands there that belongs to no option; it is not repeated, for it may be a key: keys go into variables, which `--help` names";
        return Err(Failure::Usage(problem.to_owned()));
    }
    let lines = |problems: Problems| problems.lines().to_vec();
    match (WebhookInstallConfig::from_vars(vars).map_err(lines), Address::parse(&arguments.url)) {
        (Ok(config), Ok(address)) => Ok((config, address)),
        (config, address) => {
            let mut all = config.err().unwrap_or_default();
            all.extend(address.err().map(|problem| format!("--url: {problem}")));
            let lines: String = all.iter().map(|line| format!("\n  - {line}")).collect();
            Err(Failure::Usage(format!("to install the webhook, mend this first:{lines}")))
        }
    }
}
