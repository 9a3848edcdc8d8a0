use proptest::prelude::*;

use super::*;

#[test]
fn the_frames_end_waits_for_the_gap() {
    let mut window = WriteWindow::new(Offset::new(10), 4096);
    let first = window.launch(Offset::new(20), 8192, 'a');
    let second = window.launch(Offset::new(30), 12288, 'b');
    assert_eq!((window.written(), window.in_flight()), (Offset::new(30), 2));
    window.land(second);
    assert_eq!(window.pass(), None, "a frame behind a gap proves nothing");
    assert_eq!((window.frames_end(), window.frames_end_position()), (Offset::new(10), 4096));
    window.land(first);
    assert_eq!((window.pass(), window.pass(), window.pass()), (Some('a'), Some('b'), None));
    assert_eq!((window.frames_end(), window.frames_end_position()), (Offset::new(30), 12288));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_passes_once_and_in_order(order in Just((0..30_usize).collect::<Vec<_>>()).prop_shuffle()) {
        let mut window = WriteWindow::new(Offset::ZERO, 0);
        let flights: Vec<FlightNumber> = (0..30_i64)
            .map(|at| window.launch(Offset::new(at + 1), (at.unsigned_abs() + 1) * 4096, at))
            .collect();
        let (mut landed, mut passed) = (vec![false; 30], Vec::new());
        for at in order {
            window.land(flights[at]);
            landed[at] = true;
            passed.extend(std::iter::from_fn(|| window.pass()));
            let contiguous = landed.iter().take_while(|landed| **landed).count();
            prop_assert_eq!(window.frames_end().get(), i64::try_from(contiguous)?);
            prop_assert_eq!(passed.len(), contiguous);
        }
        prop_assert!(passed.is_sorted());
    }
}
