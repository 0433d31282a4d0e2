//! launchd's file, a property list; and what `launchctl print` says.
//!
//! Written by what Apple documents in launchd.plist(5); no Mac has read it yet.

use serde::Serialize;

use super::{MARKER, NAME, Service, ServiceError, text};

/// The property list of a service. Fails where one of its paths has no place in one.
pub fn plist(service: &Service) -> Result<String, ServiceError> {
    let program = escaped(text(&service.program)?);
    let config = escaped(text(&service.config)?);
    let logs = escaped(text(&service.logs)?);
    let run_as = service.run_as.as_deref().map_or(String::new(), |name| {
        format!("    <key>UserName</key>\n    <string>{}</string>\n", escaped(name))
    });
    // Started at login or boot and after a failure. A background process: the system gives it what others leave of the
    // processor and the disk. No core files.
    Ok(format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- {MARKER}. -->
<plist version="1.0">
<dict>
    <key>Label</key>
    <string>{NAME}</string>
    <key>ProgramArguments</key>
    <array>
        <string>{program}</string>
        <string>--config</string>
        <string>{config}</string>
        <string>run</string>
    </array>
{run_as}    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <dict>
        <key>SuccessfulExit</key>
        <false/>
    </dict>
    <key>ThrottleInterval</key>
    <integer>30</integer>
    <key>ExitTimeOut</key>
    <integer>30</integer>
    <key>ProcessType</key>
    <string>Background</string>
    <key>LowPriorityIO</key>
    <true/>
    <key>Umask</key>
    <integer>63</integer>
    <key>HardResourceLimits</key>
    <dict>
        <key>Core</key>
        <integer>0</integer>
    </dict>
    <key>StandardErrorPath</key>
    <string>{logs}</string>
</dict>
</plist>
"#
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What the manager says of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Printed {
    /// `running`, `not running` and the like.
    pub state: String,
    /// The process.
    pub pid: Option<u32>,
    /// The code that it exited with last.
    pub last_exit: Option<String>,
}

/// Reads what `launchctl print` printed. Only lines of the service itself count, which are indented once.
pub fn printed(text: &str) -> Printed {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (found, value) = line.strip_prefix('\t')?.split_once(" = ")?;
            (found == key).then(|| value.to_owned())
        })
    };
    Printed {
        state: value("state").unwrap_or_default(),
        pid: value("pid").and_then(|pid| pid.parse().ok()),
        last_exit: value("last exit code"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::super::tests::service;
    use super::*;

    #[test]
    fn the_list_starts_the_program_with_its_configuration() {
        let service = Service { config: "/Users/a & b/agent.toml".into(), ..service(Scope::User) };
        let list = plist(&service).unwrap();
        assert!(list.contains("<string>/usr/bin/nightshift-agent</string>"));
        assert!(list.contains("<string>/Users/a &amp; b/agent.toml</string>"), "{list}");
        assert!(!list.contains("UserName"));
        for tag in ["dict", "array", "plist"] {
            let count = |what: &str| list.matches(what).count();
            assert_eq!(count(&format!("</{tag}>")), count(&format!("<{tag}>")) + count(&format!("<{tag} ")));
        }
    }

    #[test]
    fn a_daemon_of_the_machine_may_run_as_somebody() {
        let list = plist(&Service { run_as: Some("alex".to_owned()), ..service(Scope::System) }).unwrap();
        assert!(list.contains("<key>UserName</key>\n    <string>alex</string>"), "{list}");
    }

    #[test]
    fn what_launchctl_says_of_the_service_itself_is_read() {
        let text = "gui/501/nightshift-agent = {\n\tactive count = 1\n\tstate = running\n\tprogram = /x\n\tpid = 812\n\
                    \tlast exit code = (never exited)\n\tspawn = {\n\t\tstate = other\n\t}\n}\n";
        let found = printed(text);
        assert_eq!((found.state.as_str(), found.pid), ("running", Some(812)));
        assert_eq!(found.last_exit.as_deref(), Some("(never exited)"));
        assert_eq!(printed(""), Printed::default());
    }
}
