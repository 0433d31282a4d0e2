//! Who has a place at a listener, and whose place a newcomer takes.
//!
//! Everybody is accepted. A newcomer who finds its kind at the limit takes the place of the oldest connection of the
//! network that has the most of that kind: whoever comes from elsewhere loses nothing to a network that floods, and a
//! network of many devices behind one address is served as long as there is room. A network is a /24 of IPv4 or a /64
//! of IPv6; of all networks it is looked first which *site* has the most, a /16 or a /48, since whoever has one such has
//! all networks in it.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::allowance::Allowance;
use crate::peer::Peer;

/// One connection, for as long as the process runs. Later ones are larger.
pub(super) type Place = u64;

/// How many connections of each kind a listener has at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Such as have sent nothing yet.
    pub(super) silent: usize,
    /// Such as are shaking hands.
    pub(super) shaking: usize,
    /// Such as showed no certificate.
    pub(super) anonymous: usize,
    /// Such as showed one.
    pub(super) named: usize,
}

/// The part of an address that one party is likely to have whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Network {
    /// The larger part, that one organization is likely to have whole.
    site: u64,
    within: u16,
}

/// Connections of one kind.
#[derive(Debug, Default)]
struct Pool {
    places: BTreeMap<Network, BTreeSet<Place>>,
    count: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    Silent,
    Shaking,
    Anonymous,
    Named(Peer),
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Admissions {
    room: Room,
    next: Place,
    kinds: BTreeMap<Place, (Network, Kind)>,
    silent: Pool,
    shaking: Pool,
    anonymous: Pool,
    named: BTreeMap<Peer, BTreeSet<Place>>,
    named_count: usize,
}

/// What becomes of a connection whose peer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It has a place.
    Welcome,
    /// It has the place of another one, which is to be closed.
    InsteadOf(Place),
    /// There is no place for it: it is to be closed.
    Full,
    /// It has lost its place meanwhile: it is being closed.
    Gone,
}

impl Admissions {
    pub(super) fn new(room: Room) -> Self {
        Self {
            room,
            next: 0,
            kinds: BTreeMap::new(),
            silent: Pool::default(),
            shaking: Pool::default(),
            anonymous: Pool::default(),
            named: BTreeMap::new(),
            named_count: 0,
        }
    }

    /// A connection was accepted. The second is to be closed for it, if there is one.
    pub(super) fn arrive(&mut self, address: IpAddr) -> (Place, Option<Place>) {
        let (network, place) = (Network::of(address), self.next);
        self.next += 1;
        let gone = self.make_room(&Kind::Silent);
        self.enter(place, network, Kind::Silent);
        (place, gone)
    }

    /// It has sent something. What comes back is to be closed for it.
    pub(super) fn spoke(&mut self, place: Place) -> Option<Place> {
        let (network, _) = self.leave(place)?;
        let gone = self.make_room(&Kind::Shaking);
        self.enter(place, network, Kind::Shaking);
        gone
    }

    /// The handshake has shown who it is.
    pub(super) fn known(&mut self, place: Place, peer: &Peer) -> Admitted {
        let Some((network, _)) = self.leave(place) else { return Admitted::Gone };
        let kind = match peer {
            Peer::Anonymous => Kind::Anonymous,
            Peer::Device(_) | Peer::Admin(_) | Peer::Coordinator(_) => Kind::Named(peer.clone()),
        };
        let gone = self.make_room(&kind);
        if matches!(kind, Kind::Named(_)) && self.named_count >= self.room.named {
            return Admitted::Full;
        }
        self.enter(place, network, kind);
        gone.map_or(Admitted::Welcome, Admitted::InsteadOf)
    }

    /// A connection that holds a descriptor and is worth least: for when the system gives no other.
    pub(super) fn least(&mut self) -> Option<Place> {
        let pools = [&self.silent, &self.shaking, &self.anonymous];
        let place = pools.into_iter().find_map(Pool::oldest_of_most)?;
        self.leave(place);
        Some(place)
    }

    /// How many connections showed a certificate that is good.
    pub(super) fn named(&self) -> usize {
        self.named_count
    }

    /// It is closed.
    pub(super) fn closed(&mut self, place: Place) {
        self.leave(place);
    }

    /// Takes the place of another one, where a newcomer of this kind needs it.
    fn make_room(&mut self, kind: &Kind) -> Option<Place> {
        let full = |pool: &Pool, limit: usize| pool.count >= limit.max(1);
        let gone = match kind {
            Kind::Silent if full(&self.silent, self.room.silent) => self.silent.oldest_of_most(),
            Kind::Shaking if full(&self.shaking, self.room.shaking) => self.shaking.oldest_of_most(),
            Kind::Anonymous if full(&self.anonymous, self.room.anonymous) => self.anonymous.oldest_of_most(),
            Kind::Named(peer) => {
                let most = Allowance::of(peer).connections;
                let own = self.named.get(peer).filter(|own| own.len() >= most);
                own.and_then(|own| own.first().copied())
            }
            Kind::Silent | Kind::Shaking | Kind::Anonymous => None,
        }?;
        self.leave(gone);
        Some(gone)
    }

    fn enter(&mut self, place: Place, network: Network, kind: Kind) {
        match &kind {
            Kind::Silent => self.silent.enter(network, place),
            Kind::Shaking => self.shaking.enter(network, place),
            Kind::Anonymous => self.anonymous.enter(network, place),
            Kind::Named(peer) => {
                self.named.entry(peer.clone()).or_default().insert(place);
                self.named_count += 1;
            }
        }
        self.kinds.insert(place, (network, kind));
    }

    fn leave(&mut self, place: Place) -> Option<(Network, Kind)> {
        let (network, kind) = self.kinds.remove(&place)?;
        match &kind {
            Kind::Silent => self.silent.leave(network, place),
            Kind::Shaking => self.shaking.leave(network, place),
            Kind::Anonymous => self.anonymous.leave(network, place),
            Kind::Named(peer) => {
                if let Some(own) = self.named.get_mut(peer) {
                    own.remove(&place);
                    if own.is_empty() {
                        self.named.remove(peer);
                    }
                }
                self.named_count -= 1;
            }
        }
        Some((network, kind))
    }
}

impl Pool {
    fn enter(&mut self, network: Network, place: Place) {
        self.places.entry(network).or_default().insert(place);
        self.count += 1;
    }

    fn leave(&mut self, network: Network, place: Place) {
        let Some(places) = self.places.get_mut(&network) else { return };
        if places.remove(&place) {
            self.count -= 1;
        }
        if places.is_empty() {
            self.places.remove(&network);
        }
    }

    /// The oldest place of the network that has the most, within the site that has the most; of two with as many, the
    /// older.
    fn oldest_of_most(&self) -> Option<Place> {
        let mut sites: BTreeMap<u64, usize> = BTreeMap::new();
        for (network, places) in &self.places {
            *sites.entry(network.site).or_default() += places.len();
        }
        let crowds = self.places.iter().filter_map(|(network, places)| {
            Some((sites.get(&network.site)?, places.len(), std::cmp::Reverse(*places.first()?)))
        });
        crowds.max().map(|(_, _, std::cmp::Reverse(oldest))| oldest)
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                // One bit that no site of IPv6 has.
                Self { site: (1 << 48) | u64::from(u16::from_be_bytes([a, b])), within: c.into() }
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self { site: (u64::from(a) << 32) | (u64::from(b) << 16) | u64::from(c), within: d }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room { silent: 4, shaking: 4, anonymous: 4, named: 4 };

    fn v4(network: u8, host: u8) -> IpAddr {
        IpAddr::from([192, network, 0, host])
    }

    #[test]
    fn a_network_that_floods_pays_for_itself() {
        let mut admissions = Admissions::new(ROOM);
        let (elsewhere, _) = admissions.arrive(v4(9, 1));
        let crowd: Vec<Place> = (0..3).map(|host| admissions.arrive(v4(1, host)).0).collect();
        for host in 3..100 {
            let (place, gone) = admissions.arrive(v4(1, host));
            assert_ne!(gone, Some(elsewhere));
            assert!(gone.is_some_and(|gone| gone < place));
        }
        // A newcomer from elsewhere takes a place of the crowd too.
        let (_, gone) = admissions.arrive(v4(9, 2));
        assert!(gone.is_some() && gone != Some(elsewhere) && !crowd.contains(&gone.unwrap()));
    }

    #[test]
    fn a_site_that_floods_from_many_networks_pays_for_itself() {
        let mut admissions = Admissions::new(ROOM);
        let (elsewhere, _) = admissions.arrive("2001:db8:1::1".parse().unwrap());
        for network in 0..100 {
            let address = format!("2001:db8:2:{network}::1").parse().unwrap();
            assert_ne!(admissions.arrive(address).1, Some(elsewhere));
        }
    }

    #[test]
    fn those_who_speak_do_not_lose_their_place_to_the_silent() {
        let mut admissions = Admissions::new(ROOM);
        let (speaker, _) = admissions.arrive(v4(1, 1));
        assert_eq!(admissions.spoke(speaker), None);
        for host in 0..100 {
            assert_ne!(admissions.arrive(v4(1, host)).1, Some(speaker));
        }
        assert_eq!(admissions.known(speaker, &Peer::Anonymous), Admitted::Welcome);
    }

    #[test]
    fn a_device_has_two_connections_and_the_newest_ones_stay() {
        let mut admissions = Admissions::new(ROOM);
        let mut connect = |id: u8| {
            let (place, _) = admissions.arrive(v4(id, 1));
            (place, admissions.known(place, &Peer::Device([id; 16])))
        };
        let (first, admitted) = connect(1);
        assert_eq!(admitted, Admitted::Welcome);
        let (second, _) = connect(1);
        assert_eq!(connect(1).1, Admitted::InsteadOf(first));
        assert_eq!(connect(2).1, Admitted::Welcome);
        assert_eq!(connect(3).1, Admitted::Welcome);
        // Four are connected. A fifth device is turned away, one of the four may come anew.
        assert_eq!(connect(4).1, Admitted::Full);
        assert_eq!(connect(1).1, Admitted::InsteadOf(second));
    }

    #[test]
    fn neighbors_of_one_network_count_together() {
        let one: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        assert_eq!(Network::of(one), Network::of("2001:db8:0:1:ffff::2".parse().unwrap()));
        assert_ne!(Network::of(one), Network::of("2001:db8:0:2::1".parse().unwrap()));
        assert_eq!(
            Network::of("192.0.2.1".parse().unwrap()),
            Network::of("::ffff:192.0.2.77".parse().unwrap())
        );
        assert_ne!(Network::of("0.0.0.1".parse().unwrap()), Network::of("::".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn no_kind_ever_has_more_than_its_room(steps in proptest::collection::vec((0_u8..6, any::<u8>()), 0..400)) {
            let mut admissions = Admissions::new(ROOM);
            let mut open = BTreeSet::new();
            for (step, pick) in steps {
                let place = open.iter().nth(usize::from(pick) % open.len().max(1)).copied();
                let close = |open: &mut BTreeSet<Place>, gone: Option<Place>| {
                    prop_assert!(gone.is_none_or(|gone| open.remove(&gone)), "closed twice");
                    Ok(())
                };
                match (step, place) {
                    (0 | 1, _) | (_, None) => {
                        let (place, gone) = admissions.arrive(v4(pick % 3, pick));
                        close(&mut open, gone)?;
                        open.insert(place);
                    }
                    (2, Some(place)) => close(&mut open, admissions.spoke(place))?,
                    (3 | 4, Some(place)) => {
                        let peer = if step == 3 { Peer::Anonymous } else { Peer::Device([pick % 5; 16]) };
                        match admissions.known(place, &peer) {
                            Admitted::Welcome => {}
                            Admitted::InsteadOf(gone) => close(&mut open, Some(gone))?,
                            Admitted::Full => close(&mut open, Some(place))?,
                            Admitted::Gone => prop_assert!(false, "it is open"),
                        }
                    }
                    (_, Some(place)) => {
                        admissions.closed(place);
                        open.remove(&place);
                    }
                }
                prop_assert!(admissions.silent.count <= 4 && admissions.shaking.count <= 4);
                prop_assert!(admissions.anonymous.count <= 4 && admissions.named_count <= 4);
                prop_assert_eq!(admissions.kinds.len(), open.len());
                let counted = admissions.silent.count + admissions.shaking.count
                    + admissions.anonymous.count + admissions.named_count;
                prop_assert_eq!(counted, open.len());
            }
        }
    }
}
