//! The checks that every set of regions has passed.

use lxmert::vision::Regions;

#[test]
fn refuses_lengths_that_do_not_agree() {
    let build = |features, feature_len, boxes, box_len| {
        Regions::new(vec![0.0; features], feature_len, vec![0.0; boxes], box_len).unwrap_err().to_string()
    };
    assert_eq!(build(11, 5, 8, 4), "features hold 11 values, which is not 2 regions of 5");
    assert_eq!(build(10, 5, 9, 4), "boxes hold 9 values, which is not 2 regions of 4");
    assert_eq!(build(10, 0, 8, 4), "0 features a region; give 1 to 16384");
    assert_eq!(build(20000, 20000, 4, 4), "20000 features a region; give 1 to 16384");
    assert!(build(2, 1, 6, 3).starts_with("3 values a box; give 4 to 64"));
    assert!(build(0, 5, 0, 4).starts_with("0 regions"));
}

#[test]
fn keeps_further_box_columns_as_they_are() {
    let boxes = vec![0.0, 0.0, 0.5, 1.0, 7.5, -3.0];
    let regions = Regions::new(vec![1.0], 1, boxes.clone(), 6).unwrap();
    assert_eq!((regions.box_len(), regions.boxes()), (6, &boxes[..]));
}
