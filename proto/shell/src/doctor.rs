//! What a doctor of ours found: one line a thing, whether it is right, and what to do where it is not.

use serde::Serialize;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, or will, and somebody should know this.
    Warning,
    /// It does not work before somebody does something.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    check: &'static str,
    verdict: Verdict,
    what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<String>,
    #[serde(skip)]
    code: u8,
}

impl Finding {
    /// A thing that is as it should be.
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, Verdict::Ok, what.into())
    }

    /// A thing that somebody should know.
    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, Verdict::Warning, what.into())
    }

    /// A thing that keeps the program from its work.
    pub fn fault(check: &'static str, what: impl Into<String>) -> Self {
        Self::of(check, Verdict::Fault, what.into())
    }

    fn of(check: &'static str, verdict: Verdict, what: String) -> Self {
        Self { check, verdict, what, to_do: None, code: 4 }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn advising(self, what: impl Into<String>) -> Self {
        Self { to_do: Some(what.into()), ..self }
    }

    /// The same, with the code that the program exits with where it is the first fault; 4 without.
    #[must_use]
    pub fn code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// What was looked at.
    pub fn check(&self) -> &'static str {
        self.check
    }

    /// How it is.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// What was found.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.to_do.as_deref()
    }

    fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fault => "fault",
        };
        let to_do =
            self.to_do.as_ref().map_or(String::new(), |to_do| format!("\n{:9}{:15}to do: {to_do}", "", ""));
        format!("{verdict:8} {:14} {}{to_do}", self.check, self.what.trim_end())
    }
}

/// All that was looked at.
#[derive(Debug, Default, Serialize)]
pub struct Examined {
    faults: usize,
    warnings: usize,
    checks: Vec<Finding>,
}

impl Examined {
    /// Adds one thing.
    pub fn add(&mut self, finding: Finding) {
        match finding.verdict {
            Verdict::Ok => {}
            Verdict::Warning => self.warnings += 1,
            Verdict::Fault => self.faults += 1,
        }
        self.checks.push(finding);
    }

    /// All of it for people.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = self.checks.iter().map(Finding::text).collect();
        let count =
            |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
        lines.push(format!("{}, {}", count(self.faults, "fault"), count(self.warnings, "warning")));
        lines.join("\n")
    }

    /// What is at fault, in words, and the code of the first; nothing where nothing is.
    pub fn fault(&self) -> Option<(u8, String)> {
        let first = self.checks.iter().find(|finding| finding.verdict == Verdict::Fault)?;
        let more = self.faults - 1;
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        Some((first.code, format!("found at fault: {}{more}", first.check)))
    }
}

impl Extend<Finding> for Examined {
    fn extend<T: IntoIterator<Item = Finding>>(&mut self, findings: T) {
        findings.into_iter().for_each(|finding| self.add(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_gives_the_code_and_warnings_give_none() {
        let mut examined = Examined::default();
        examined.add(Finding::ok("state", "it opens"));
        examined.add(Finding::warning("pause", "paused").advising("resume"));
        assert_eq!(examined.fault(), None);
        examined.add(Finding::fault("text", "there is none").code(3));
        examined.add(Finding::fault("coordinator", "nobody answers").code(5));
        assert_eq!(examined.fault(), Some((3, "found at fault: text, and 1 more".to_owned())));
        let text = examined.text();
        assert!(
            text.starts_with("ok       state          it opens\nwarning  pause          paused\n"),
            "{text}"
        );
        assert!(text.contains("\n                        to do: resume\nfault    text "), "{text}");
        assert!(text.ends_with("\n2 faults, 1 warning"), "{text}");
        let json = serde_json::to_value(&examined).unwrap();
        assert_eq!((&json["faults"], &json["checks"][1]["to_do"]), (&2.into(), &"resume".into()));
        assert_eq!(json["checks"][2]["verdict"], "fault");
    }
}
