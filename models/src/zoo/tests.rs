use super::*;
use crate::layout::{Role, parameters};
use crate::onnx::{Dim, Element};

fn batched(shape: &[usize]) -> Vec<Dim> {
    make::batched("", shape).shape
}

#[test]
fn shapes_and_parameter_counts_are_those_of_the_drawing_board() {
    let mlp = mlp(784, &[256], 10, 0);
    let (layout, _) = parameters(&mlp, &[]).unwrap();
    assert_eq!(layout.length(), 784 * 256 + 256 + 256 * 10 + 10);
    assert_eq!(layout.get("fc1.weight").unwrap().shape, [784, 256]);
    assert_eq!(mlp.inputs()[0].shape, batched(&[784]));
    assert_eq!(mlp.outputs()[0].name, "logits");

    let lenet = lenet(10, 0);
    assert_eq!(parameters(&lenet, &[]).unwrap().0.length(), 206_922);

    let cnn = cnn([1, 8, 8], 10, 0);
    let (layout, _) = parameters(&cnn, &[]).unwrap();
    assert_eq!(layout.length(), 160 + 4640 + (128 * 64 + 64) + 650);
    assert_eq!(cnn.inputs()[0].element, Element::F32);
    assert_eq!(cnn.outputs()[0].shape, batched(&[10]));
}

#[test]
fn weights_follow_the_seed_and_their_bound() {
    let of = |seed| parameters(&cnn([1, 8, 8], 10, seed), &[]).unwrap();
    assert_eq!(of(3).1, of(3).1);
    assert_ne!(of(3).1, of(4).1);
    let (layout, flat) = of(3);
    for parameter in layout.parameters() {
        let values = &flat[parameter.range()];
        if parameter.role == Role::Bias {
            assert!(values.iter().all(|v| *v == 0.0));
            continue;
        }
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let fan_in: usize = match parameter.shape.len() {
            4 => parameter.shape[1..].iter().product(),
            _ => parameter.shape[0],
        };
        let bound = (6.0 / fan_in as f32).sqrt();
        assert!(largest <= bound, "{}: {largest} > {bound}", parameter.name);
        assert!(largest > 0.7 * bound || parameter.name == "fc2.weight", "{}", parameter.name);
    }
}

#[test]
fn tiny_images_lose_their_pools_instead_of_vanishing() {
    let model = cnn([3, 2, 1], 2, 0);
    let pools = model.graph().node.iter().filter(|n| n.op_type() == "MaxPool").count();
    assert_eq!(pools, 0);
    assert_eq!(parameters(&model, &[]).unwrap().0.get("fc1.weight").unwrap().shape, [64, 64]);
}

#[test]
fn files_round_trip_and_scaling_has_nothing_to_train() {
    for model in [mlp(4, &[], 2, 1), cnn([1, 8, 8], 10, 1), lenet(10, 1), scale(&[1, 8, 8], 0.0625)] {
        assert_eq!(Model::decode(&model.encode()).unwrap(), model);
    }
    let refused = parameters(&scale(&[4], 0.5), &[]).unwrap_err();
    assert_eq!(refused, crate::ModelError::NothingToTrain);
}
