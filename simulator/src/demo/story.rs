//! The story on stdout; silent when stdout belongs to the JSON object.

use std::fmt::Display;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::Report;

/// Tells what happens.
#[derive(Debug)]
pub(super) struct Story {
    silent: bool,
    scenes: u32,
}

impl Story {
    pub(super) fn new(silent: bool) -> Self {
        Self { silent, scenes: 0 }
    }

    /// A numbered heading.
    pub(super) fn scene(&mut self, title: &str) {
        self.scenes += 1;
        if !self.silent {
            println!("\n{}. {title}", self.scenes);
        }
    }

    /// A line below it.
    pub(super) fn tell(&mut self, line: impl Display) {
        if !self.silent {
            println!("   {line}");
        }
    }

    /// A progress bar, drawn on stderr if that is a terminal.
    pub(super) fn progress(&self, length: usize) -> ProgressBar {
        let target = if self.silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(length as u64), target);
        let style = ProgressStyle::with_template("   {bar:40.cyan/blue} {pos}/{len} uplinks, {per_sec}");
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    /// The closing table and what is missing.
    pub(super) fn close(&mut self, report: &Report) {
        self.scene("What became of it all");
        for (label, value) in report.rows() {
            self.tell(format_args!("{label:<44} {value:>7}"));
        }
        let missing = report.missing();
        if missing.is_empty() {
            println!("\nNothing is missing.");
        } else {
            println!("\nMissing:");
            for line in missing {
                println!("  - {line}");
            }
        }
    }
}
