//! A connection to the bus on which every call has an end.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use zbus::names::BusName;
use zbus::{Connection, DynamicType, Message, MessageStream, OwnedVariant, Variant, connection, fdo};

use super::super::super::BusAddress;

/// The longest that an answer may take.
const BOUND: Duration = Duration::from_secs(2);

const BUS: &str = "org.freedesktop.DBus";

/// Why something could not be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The bus is gone, or does not answer.
    Bus(String),
    /// The service does not answer, refuses, or says what it should not.
    Service(String),
}

/// The properties of an object.
pub(super) type Properties = BTreeMap<String, OwnedVariant>;

/// An object of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'a> {
    /// The service's name for people.
    pub(super) service: &'a str,
    /// The connection that owns the service's name: a call to it starts nothing.
    pub(super) owner: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
}

/// A connection to the bus.
#[derive(Debug)]
pub(super) struct Line(Connection);

impl Line {
    pub(super) async fn open(address: &BusAddress) -> Result<Self, String> {
        let builder = match address {
            BusAddress::At(address) => connection::Builder::address(address.as_str()),
            BusAddress::System | BusAddress::None => connection::Builder::system(),
        };
        let built = tokio::time::timeout(BOUND, builder.build()).await;
        match built {
            Ok(Ok(connection)) => Ok(Self(connection)),
            Ok(Err(error)) => Err(format!("no bus: {error}")),
            Err(_) => Err(format!("the bus does not answer within {} s", BOUND.as_secs())),
        }
    }

    /// Everything that comes from the bus from now on.
    pub(super) fn signals(&self) -> MessageStream {
        MessageStream::from(&self.0)
    }

    /// Asks the bus for the signals of a rule.
    pub(super) async fn add_match(&self, rule: &str) -> Result<(), Failure> {
        let bus = Object { service: "the bus", owner: BUS, path: "/org/freedesktop/DBus", interface: BUS };
        self.call(bus, "AddMatch", &rule).await.map(drop)
    }

    /// The connection that owns a name, if one does.
    pub(super) async fn owner(&self, name: &str) -> Result<Option<String>, Failure> {
        let call = self.0.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "GetNameOwner", &name);
        let answer = match tokio::time::timeout(BOUND, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(zbus::Error::FDO(error))) if matches!(*error, fdo::Error::NameHasNoOwner(_)) => {
                return Ok(None);
            }
            Ok(Err(error)) => return Err(Failure::Bus(format!("the bus is gone: {error}"))),
            Err(_) => {
                return Err(Failure::Bus(format!("the bus does not answer within {} s", BOUND.as_secs())));
            }
        };
        let owner = answer.body().deserialize::<String>();
        owner.map(Some).map_err(|error| Failure::Bus(format!("the bus answers what it should not: {error}")))
    }

    /// Calls a method.
    pub(super) async fn call<B: Serialize + DynamicType>(
        &self,
        object: Object<'_>,
        method: &str,
        body: &B,
    ) -> Result<Message, Failure> {
        let Object { service, owner, path, interface } = object;
        let owner = BusName::try_from(owner)
            .map_err(|error| Failure::Service(format!("{service} has the name {owner:?}: {error}")))?;
        let call = self.0.call_method(Some(owner), path, Some(interface), method, body);
        match tokio::time::timeout(BOUND, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error @ (zbus::Error::FDO(_) | zbus::Error::MethodError(..)))) => Err(Failure::Service(
                format!("{service} refuses {method}: {}", printable(&error.to_string())),
            )),
            Ok(Err(error)) => Err(Failure::Bus(format!("the bus is gone: {error}"))),
            Err(_) => Err(Failure::Service(format!(
                "{service} does not answer {method} within {} s",
                BOUND.as_secs()
            ))),
        }
    }

    /// All properties of an object's interface.
    pub(super) async fn properties(&self, object: Object<'_>) -> Result<Properties, Failure> {
        let of_properties = Object { interface: "org.freedesktop.DBus.Properties", ..object };
        let answer = self.call(of_properties, "GetAll", &object.interface).await?;
        answer.body().deserialize().map_err(|error| unexpected(object.service, "GetAll", &error))
    }
}

/// What to say of an answer that is of another form than it should be.
pub(super) fn unexpected(service: &str, method: &str, error: &zbus::Error) -> Failure {
    Failure::Service(format!("{service} answers {method} with what it should not: {error}"))
}

/// What services say is for people's eyes only as far as it is harmless to a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// The value of a property: `None` without it, an error where it is of another type.
pub(super) fn value<T>(
    service: &str,
    properties: &Properties,
    name: &str,
    (kind, taken): (&str, fn(&Variant<'_>) -> Option<T>),
) -> Result<Option<T>, Failure> {
    let Some(variant) = properties.get(name) else { return Ok(None) };
    let value = taken(variant).ok_or_else(|| {
        let is = variant.value_signature();
        Failure::Service(format!("{service} says a {name} of type \"{is}\"; it should be {kind}"))
    });
    value.map(Some)
}

/// The value of a property that must be there.
pub(super) fn needed<T>(service: &str, name: &str, value: Option<T>) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::Service(format!("{service} says no {name}")))
}

/// A kind of value, its name and how it is taken.
pub(super) type Kind<T> = (&'static str, fn(&Variant<'_>) -> Option<T>);

pub(super) const BOOLEAN: Kind<bool> =
    ("a boolean", |value| if let Variant::Bool(value) = value { Some(*value) } else { None });
pub(super) const UNSIGNED: Kind<u32> =
    ("an unsigned number", |value| if let Variant::U32(value) = value { Some(*value) } else { None });
pub(super) const LONG: Kind<u64> =
    ("a long unsigned number", |value| if let Variant::U64(value) = value { Some(*value) } else { None });
pub(super) const DOUBLE: Kind<f64> =
    ("a fraction", |value| if let Variant::F64(value) = value { Some(*value) } else { None });
pub(super) const TEXT: Kind<String> =
    ("a text", |value| if let Variant::Str(value) = value { Some(value.as_str().to_owned()) } else { None });
