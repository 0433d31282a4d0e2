use super::*;

const PARAMETERS: Parameters = Parameters { neighbors: 6, threshold: 2, window_bound: 1 };

fn ring(size: usize, seed: u8) -> Graph {
    Graph::ring(size, PARAMETERS, &[seed; 32]).unwrap()
}

/// The places of a graph's ring, in its order.
fn order(graph: &Graph) -> Vec<u16> {
    graph.ring.as_ref().unwrap().order.iter().map(|place| place.get()).collect()
}

#[test]
fn only_one_to_256_devices_make_a_complete_graph() {
    assert_eq!(Graph::complete(0), None);
    assert_eq!(Graph::complete(257), None);
    assert!(Graph::complete(1).is_some());
    assert!(Graph::complete(256).is_some());
}

#[test]
fn a_ring_has_an_even_number_of_neighbors_fewer_than_devices() {
    for neighbors in [0, 5, 10, 12] {
        assert_eq!(Graph::ring(10, Parameters { neighbors, ..PARAMETERS }, &[1; 32]), None);
    }
    assert!(Graph::ring(10, Parameters { neighbors: 8, ..PARAMETERS }, &[1; 32]).is_some());
    assert_eq!(Graph::ring(MAX_COHORT + 1, PARAMETERS, &[1; 32]), None);
}

#[test]
fn threshold_and_quorum_follow_their_formulas() {
    let numbers = |size, permille| {
        let corrupt = corrupt_devices(size, permille);
        (Graph::complete(size).unwrap().threshold(), quorum(size, corrupt))
    };
    assert_eq!(numbers(1, 50), (1, 1));
    assert_eq!(numbers(2, 50), (2, 2));
    assert_eq!(numbers(20, 50), (11, 11));
    assert_eq!(numbers(100, 50), (51, 53));
    assert_eq!(numbers(101, 50), (51, 54));
    assert_eq!(numbers(256, 100), (129, 141));
    assert_eq!(ring(20, 1).threshold(), 2);
}

#[test]
fn two_quorums_share_more_devices_than_may_be_corrupt() {
    for size in 1..=MAX_COHORT {
        for permille in [0, 1, 50, 100, 333, 499] {
            let corrupt = corrupt_devices(size, permille);
            assert!(quorum(size, corrupt) <= size);
            assert!(2 * quorum(size, corrupt) > size + corrupt);
        }
    }
}

#[test]
fn a_device_of_the_complete_graph_holds_a_share_of_its_own_and_is_no_neighbor() {
    let graph = Graph::complete(3).unwrap();
    let places = |places: Vec<DeviceIndex>| places.into_iter().map(DeviceIndex::get).collect::<Vec<_>>();
    assert_eq!(places(graph.neighbors(1.into())), [0, 2]);
    assert_eq!(places(graph.holders(1.into())), [0, 1, 2]);
    assert!(graph.holds(1.into(), 1.into()));
    assert!(!graph.holds(3.into(), 3.into()));
}

#[test]
fn every_device_of_a_ring_has_k_neighbors_and_they_have_it() {
    for size in [7, 8, 20, 61] {
        let graph = ring(size, 3);
        for place in graph.places() {
            let neighbors = graph.neighbors(place);
            assert_eq!(neighbors.len(), 6);
            assert_eq!(graph.holders(place), neighbors);
            assert!(neighbors.is_sorted_by(|a, b| a < b) && !neighbors.contains(&place));
            for other in graph.places() {
                assert_eq!(graph.are_neighbors(place, other), neighbors.contains(&other));
                assert_eq!(graph.holds(other, place), neighbors.contains(&other));
            }
            assert!(neighbors.iter().all(|other| graph.neighbors(*other).contains(&place)));
        }
    }
}

#[test]
fn the_order_of_a_ring_follows_from_its_seed_alone() {
    assert_eq!(ring(50, 1), ring(50, 1));
    assert_ne!(ring(50, 1), ring(50, 2));
    let mut sorted = order(&ring(50, 1));
    sorted.sort_unstable();
    assert_eq!(sorted, (0..50).collect::<Vec<u16>>());
}

/// Chi-square over the place at the head of the ring: 8 places, 4,000 seeds,
/// 7 degrees of freedom; above 29.9 once in 10,000 times.
#[test]
fn every_place_is_as_likely_at_the_head_of_the_ring() {
    let mut counts = [0_u32; 8];
    for seed in 0..4000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_be_bytes());
        counts[usize::from(order(&Graph::ring(8, PARAMETERS, &bytes).unwrap())[0])] += 1;
    }
    let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 500.0).powi(2) / 500.0).sum();
    assert!(chi < 29.9, "{counts:?}");
}

#[test]
fn a_window_with_too_few_survivors_is_found_wherever_it_is() {
    let graph = ring(20, 5);
    let order = order(&graph);
    assert_eq!(graph.thin_window(&IndexSet::full(20)), None);
    for start in 0..20 {
        let mut survivors = IndexSet::full(20);
        let window: Vec<u16> = (0..3).map(|step| order[(start + step) % 20]).collect();
        survivors.remove(window[0]);
        assert_eq!(graph.thin_window(&survivors), None, "two of three are left");
        survivors.remove(window[2]);
        assert!(matches!(graph.thin_window(&survivors), Some((_, 1, 2))));
    }
    assert_eq!(Graph::complete(5).unwrap().thin_window(&IndexSet::new(5)), None);
}
