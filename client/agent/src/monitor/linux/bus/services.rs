//! The services on the bus: which signals concern them, and what they are asked.

use std::time::{Duration, Instant};

use zbus::OwnedObjectPath;
use zbus::message::{Message, Type};

use super::super::idle::{Session, Sessions};
use super::super::known::{News, Services};
use super::super::power::{PowerDevice, PowerKind, UPower};
use super::super::told::Told;
use super::line::{
    BOOLEAN, DOUBLE, Failure, LONG, Line, Object, Properties, TEXT, UNSIGNED, needed, unexpected, value,
};

/// A service that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    UPower,
    Logind,
    NetworkManager,
    PowerProfiles,
}

const UPOWER: &str = "org.freedesktop.UPower";
const LOGIND: &str = "org.freedesktop.login1";
const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
/// The names of power-profiles-daemon, the new one first: a name, an object and an interface each.
const POWER_PROFILES: [(&str, &str); 2] = [
    ("org.freedesktop.UPower.PowerProfiles", "/org/freedesktop/UPower/PowerProfiles"),
    ("net.hadess.PowerProfiles", "/net/hadess/PowerProfiles"),
];

/// The most objects of a service that are asked.
const MOST_OBJECTS: usize = 256;

/// For which signals of a service the bus is asked.
pub(super) fn rules(service: Service) -> Vec<String> {
    let comes_and_goes = |name: &str| {
        format!(
            "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
             member='NameOwnerChanged',arg0='{name}'"
        )
    };
    let properties = |sender: &str, place: &str| {
        format!(
            "type='signal',sender='{sender}',interface='org.freedesktop.DBus.Properties',\
             member='PropertiesChanged',{place}"
        )
    };
    let of_interface =
        |sender: &str, interface: &str| format!("type='signal',sender='{sender}',interface='{interface}'");
    match service {
        Service::UPower => vec![
            comes_and_goes(UPOWER),
            properties(UPOWER, "path_namespace='/org/freedesktop/UPower'"),
            of_interface(UPOWER, UPOWER),
        ],
        Service::Logind => vec![
            comes_and_goes(LOGIND),
            properties(LOGIND, "path_namespace='/org/freedesktop/login1'"),
            of_interface(LOGIND, "org.freedesktop.login1.Manager"),
        ],
        // Its devices and access points change all the time.
        Service::NetworkManager => vec![
            comes_and_goes(NETWORK_MANAGER),
            properties(NETWORK_MANAGER, "path='/org/freedesktop/NetworkManager'"),
        ],
        Service::PowerProfiles => {
            let rules = |(name, path): (&str, &str)| {
                [comes_and_goes(name), properties(name, &format!("path='{path}'"))]
            };
            POWER_PROFILES.map(rules).concat()
        }
    }
}

/// The service that a message from the bus is about, if it is about one.
pub(super) fn concerned(message: &Message) -> Option<Service> {
    if message.message_type() != Type::Signal {
        return None;
    }
    let name = if is_member(message, "NameOwnerChanged") {
        message.body().deserialize::<(String, String, String)>().ok()?.0
    } else {
        message.header().path()?.as_str().trim_start_matches('/').replace('/', ".")
    };
    let below = |service: &str| {
        name.strip_prefix(service).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    // One of its names is below UPower's.
    if POWER_PROFILES.iter().any(|(profiles, _)| below(profiles)) {
        return Some(Service::PowerProfiles);
    }
    let services =
        [(UPOWER, Service::UPower), (LOGIND, Service::Logind), (NETWORK_MANAGER, Service::NetworkManager)];
    services.into_iter().find(|(name, _)| below(name)).map(|(_, service)| service)
}

/// Whether a message says that the machine goes to sleep or comes from there.
pub(super) fn is_about_sleep(message: &Message) -> bool {
    concerned(message) == Some(Service::Logind) && is_member(message, "PrepareForSleep")
}

fn is_member(message: &Message, name: &str) -> bool {
    message.header().member().is_some_and(|member| member.as_str() == name)
}

/// Asks a service. Fails where the bus does.
pub(super) async fn ask(
    line: &Line,
    service: Service,
    before: &Services,
    began: Instant,
) -> Result<News, Failure> {
    Ok(match service {
        Service::UPower => News::Power(told(power(line).await, "UPower")?),
        Service::Logind => {
            let answer = sessions(line, &before.sessions, began.elapsed()).await;
            News::Sessions(told_by_logind(answer, &before.sessions)?)
        }
        Service::NetworkManager => News::Metered(told(metered(line).await, "NetworkManager")?),
        Service::PowerProfiles => News::Profile(told(profile(line).await, "power-profiles-daemon")?),
    })
}

/// `None` is a service that is not there.
fn told<T>(answer: Result<Option<T>, Failure>, service: &str) -> Result<Told<T>, Failure> {
    match answer {
        Ok(Some(value)) => Ok(Told::Value(value)),
        Ok(None) => Ok(Told::Absent(format!("no {service} on the bus"))),
        Err(Failure::Service(why)) => Ok(Told::Trouble(why)),
        Err(Failure::Bus(why)) => Err(Failure::Bus(why)),
    }
}

/// Sessions do not end because logind does: while it is gone nobody knows who is there.
fn told_by_logind(
    answer: Result<Option<Sessions>, Failure>,
    before: &Told<Sessions>,
) -> Result<Told<Sessions>, Failure> {
    match (told(answer, "logind")?, before) {
        (Told::Absent(_), Told::Value(_) | Told::Trouble(_)) => {
            Ok(Told::Trouble("logind left the bus".to_owned()))
        }
        (told, _) => Ok(told),
    }
}

async fn power(line: &Line) -> Result<Option<UPower>, Failure> {
    let Some(owner) = line.owner(UPOWER).await? else { return Ok(None) };
    let manager =
        Object { service: "UPower", owner: &owner, path: "/org/freedesktop/UPower", interface: UPOWER };
    let properties = line.properties(manager).await?;
    let on_battery = value("UPower", &properties, "OnBattery", BOOLEAN)?;
    let on_battery = needed("UPower", "OnBattery", on_battery)?;
    let answer = line.call(manager, "EnumerateDevices", &()).await?;
    let paths = answer.body().deserialize::<Vec<OwnedObjectPath>>();
    let paths = paths.map_err(|error| unexpected("UPower", "EnumerateDevices", &error))?;
    let mut devices = Vec::new();
    for path in paths.iter().take(MOST_OBJECTS) {
        let interface = "org.freedesktop.UPower.Device";
        let properties = line.properties(Object { path: path.as_str(), interface, ..manager }).await?;
        devices.push(device(&properties)?);
    }
    Ok(Some(UPower { on_battery, devices }))
}

fn device(properties: &Properties) -> Result<PowerDevice, Failure> {
    const UPOWER: &str = "UPower";
    let kind = match value(UPOWER, properties, "Type", UNSIGNED)? {
        Some(1) => PowerKind::Line,
        Some(2 | 3) => PowerKind::Battery,
        None if properties.contains_key("Online") => PowerKind::Line,
        Some(_) | None => PowerKind::Other,
    };
    Ok(PowerDevice {
        kind,
        supplies: value(UPOWER, properties, "PowerSupply", BOOLEAN)?.unwrap_or(false),
        present: value(UPOWER, properties, "IsPresent", BOOLEAN)?.unwrap_or(true),
        percent: value(UPOWER, properties, "Percentage", DOUBLE)?.unwrap_or(0.0),
    })
}

async fn sessions(line: &Line, before: &Told<Sessions>, now: Duration) -> Result<Option<Sessions>, Failure> {
    let Some(owner) = line.owner(LOGIND).await? else { return Ok(None) };
    let manager = Object {
        service: "logind",
        owner: &owner,
        path: "/org/freedesktop/login1",
        interface: "org.freedesktop.login1.Manager",
    };
    let answer = line.call(manager, "ListSessions", &()).await?;
    let listed = answer.body().deserialize::<Vec<(String, u32, String, String, OwnedObjectPath)>>();
    let listed = listed.map_err(|error| unexpected("logind", "ListSessions", &error))?;
    let before = if let Told::Value(before) = before { Some(before) } else { None };
    let mut all = Vec::new();
    for (.., path) in listed.iter().take(MOST_OBJECTS) {
        let interface = "org.freedesktop.login1.Session";
        let properties = line.properties(Object { path: path.as_str(), interface, ..manager }).await?;
        let before =
            before.and_then(|before| before.all.iter().find(|session| session.path == path.as_str()));
        all.push(session(path.as_str(), &properties, before, now)?);
    }
    let nobody = !all.iter().any(Session::counts);
    let nobody_since = before.and_then(|before| before.nobody_since).unwrap_or(now);
    Ok(Some(Sessions { all, nobody_since: nobody.then_some(nobody_since) }))
}

fn session(
    path: &str,
    properties: &Properties,
    before: Option<&Session>,
    now: Duration,
) -> Result<Session, Failure> {
    const LOGIND: &str = "logind";
    let boolean = |name: &str| {
        let told = value(LOGIND, properties, name, BOOLEAN)?;
        needed(LOGIND, name, told)
    };
    let text = |name: &str| {
        let told = value(LOGIND, properties, name, TEXT)?;
        needed(LOGIND, name, told)
    };
    let idle = boolean("IdleHint")?;
    let locked = boolean("LockedHint")?;
    let idle_since = value(LOGIND, properties, "IdleSinceHint", LONG)?.unwrap_or(0);
    let since = |holds: bool, before: Option<Duration>| holds.then_some(before.unwrap_or(now));
    Ok(Session {
        path: path.to_owned(),
        class: text("Class")?,
        state: text("State")?,
        kind: text("Type")?,
        terminal: text("TTY")?,
        idle,
        idle_since: Duration::from_micros(idle_since),
        idle_seen: since(idle, before.and_then(|before| before.idle_seen)),
        locked_seen: since(locked, before.and_then(|before| before.locked_seen)),
    })
}

async fn metered(line: &Line) -> Result<Option<u32>, Failure> {
    let Some(owner) = line.owner(NETWORK_MANAGER).await? else { return Ok(None) };
    let manager = Object {
        service: "NetworkManager",
        owner: &owner,
        path: "/org/freedesktop/NetworkManager",
        interface: NETWORK_MANAGER,
    };
    let properties = line.properties(manager).await?;
    let metered = value("NetworkManager", &properties, "Metered", UNSIGNED)?;
    needed("NetworkManager", "Metered", metered).map(Some)
}

async fn profile(line: &Line) -> Result<Option<String>, Failure> {
    const PROFILES: &str = "power-profiles-daemon";
    for (name, path) in POWER_PROFILES {
        let Some(owner) = line.owner(name).await? else { continue };
        let daemon = Object { service: PROFILES, owner: &owner, path, interface: name };
        let properties = line.properties(daemon).await?;
        let active = value(PROFILES, &properties, "ActiveProfile", TEXT)?;
        return needed(PROFILES, "ActiveProfile", active).map(Some);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(path: &str, interface: &str, member: &str) -> Message {
        Message::signal(path, interface, member).build(&()).unwrap()
    }

    #[test]
    fn a_signal_concerns_the_service_that_it_is_of() {
        let about =
            |path: &str| concerned(&signal(path, "org.freedesktop.DBus.Properties", "PropertiesChanged"));
        assert_eq!(about("/org/freedesktop/UPower/devices/battery_BAT0"), Some(Service::UPower));
        assert_eq!(about("/org/freedesktop/UPower"), Some(Service::UPower));
        assert_eq!(about("/org/freedesktop/UPower/PowerProfiles"), Some(Service::PowerProfiles));
        assert_eq!(about("/net/hadess/PowerProfiles"), Some(Service::PowerProfiles));
        assert_eq!(about("/org/freedesktop/login1/session/_31"), Some(Service::Logind));
        assert_eq!(about("/org/freedesktop/NetworkManager"), Some(Service::NetworkManager));
        assert_eq!(about("/org/freedesktop/UPowerful"), None);
        assert_eq!(about("/"), None);
    }

    #[test]
    fn sleep_is_heard_from_logind_only() {
        let said =
            |path: &str| is_about_sleep(&signal(path, "org.freedesktop.login1.Manager", "PrepareForSleep"));
        assert!(said("/org/freedesktop/login1"));
        assert!(!said("/org/freedesktop/UPower"));
    }

    #[test]
    fn a_service_that_comes_or_goes_is_asked() {
        let message = Message::signal("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged");
        let message = message.build(&("net.hadess.PowerProfiles", "", ":1.9")).unwrap();
        assert_eq!(concerned(&message), Some(Service::PowerProfiles));
        // One that says something else is of nobody.
        let nonsense = signal("/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged");
        assert_eq!(concerned(&nonsense), None);
    }

    #[test]
    fn logind_that_left_is_missed_and_one_that_never_was_is_not() {
        let nobody = Sessions { all: Vec::new(), nobody_since: None };
        let gone = told_by_logind(Ok(None), &Told::Value(nobody)).unwrap();
        assert_eq!(gone, Told::Trouble("logind left the bus".to_owned()));
        assert_eq!(told_by_logind(Ok(None), &gone).unwrap(), gone);
        let never = told_by_logind(Ok(None), &Told::Absent("the bus has not answered yet".to_owned()));
        assert_eq!(never.unwrap(), Told::Absent("no logind on the bus".to_owned()));
    }
}
