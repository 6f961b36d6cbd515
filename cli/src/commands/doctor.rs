//! `banger doctor`

use crate::context::{Context, NONE};
use crate::error::Outcome;
use crate::style::Style;
use banger_core::protocol::{Call, DoctorReply, DoctorStatus};
use banger_core::{Kind, escape};
use clap::Args;

/// Check whether this machine has what banger needs
#[derive(Debug, Args)]
#[command(after_help = "Example:
  banger doctor

Exit code 10 where something must be mended before banger can do its job.")]
pub struct Doctor {}

impl Doctor {
    pub fn run(self, context: &Context) -> Outcome {
        let reply = context.call::<DoctorReply>(Call::Doctor(NONE))?;
        context.write(&reply, |reply| render(reply, context.output.style))?;
        let broken = |status| status == DoctorStatus::Error;
        Ok(
            if reply.value.checks.iter().any(|check| broken(check.status)) {
                Kind::Host.exit_code()
            } else {
                0
            },
        )
    }
}

fn render(reply: &DoctorReply, style: Style) -> String {
    let safe = |text: &str| escape::text(text.as_bytes());
    let widest = reply.checks.iter().map(|check| check.id.chars().count());
    let widest = widest.max().unwrap_or_default();
    let mut text = String::new();
    for check in &reply.checks {
        let word = match check.status {
            DoctorStatus::Ok => style.good("ok     "),
            DoctorStatus::Warning => style.warning("warning"),
            DoctorStatus::Error => style.error("error  "),
        };
        let (id, summary) = (safe(&check.id), safe(&check.summary));
        text += &format!("{word}  {id:widest$}  {summary}\n");
        if !check.hint.is_empty() {
            let indent = " ".repeat(widest + 11);
            let hint = safe(&check.hint);
            text += &format!("{indent}{} {hint}\n", style.hint("hint:"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_core::protocol::DoctorCheck;

    #[test]
    fn what_to_do_stands_below_what_is_wrong() {
        let check = |id: &str, status, hint: &str| DoctorCheck {
            id: id.into(),
            status,
            summary: "found".into(),
            hint: hint.into(),
        };
        let reply = DoctorReply {
            checks: vec![
                check("qemu", DoctorStatus::Ok, ""),
                check("kvm", DoctorStatus::Error, "do this"),
            ],
        };
        assert_eq!(
            render(&reply, Style::Plain),
            "ok       qemu  found\nerror    kvm   found\n               hint: do this\n"
        );
    }
}
