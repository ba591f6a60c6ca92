//! Parts of a tensor by whole coordinates: `GatherND`.
//!
//! <https://onnx.ai/onnx/operators/onnx__GatherND.html>
//!
//! The last axis of the indices holds coordinates of the first axes of the data behind `batch_dims` (opset 12) common axes;
//! negative ones count from the end (opset 13). The gradient adds up over what is picked more than once.

use burn_backend::TensorData as BurnData;
use burn_flex::FlexDevice;

use crate::interpreter::engine::Engine;
use crate::interpreter::fault::Fault;
use crate::interpreter::operator::{Compile, Context, Inputs, Operator};
use crate::interpreter::spec::Spec;
use crate::interpreter::value::{Host, Value, axis, bounded, bounded_on_host, floats, reshape};

pub(super) fn family<B: Engine>(op: &str) -> Option<Compile<B>> {
    Some(match op {
        "GatherND" => gather_nd,
        _ => return None,
    })
}

struct GatherNd {
    common: usize,
}

fn gather_nd<B: Engine>(spec: &Spec<'_>) -> Result<Box<dyn Operator<B>>, Fault> {
    spec.arity(2, 2)?;
    let common = spec.int("batch_dims").unwrap_or(0);
    let common = usize::try_from(common).map_err(|_| Fault::broken(format!("batch_dims = {common}")))?;
    Ok(Box::new(GatherNd { common }))
}

impl<B: Engine> Operator<B> for GatherNd {
    fn run(&self, mut inputs: Inputs<B>, _: &mut Context<'_, B>) -> Result<Vec<Value<B>>, Fault> {
        let (x, wanted) = (inputs.any(0)?, inputs.host(1)?);
        let shape = x.shape();
        let bad = || Fault::shape(format!("indices {:?} of {shape:?}, batch_dims = {}", wanted.shape, self.common));
        let (depth, places) = wanted.shape.split_last().ok_or_else(bad)?;
        let (depth, common) = (*depth, self.common);
        let together = places.get(..common).is_some_and(|have| shape.get(..common) == Some(have));
        if !together || depth == 0 || depth.saturating_add(common) > shape.len() {
            return Err(bad());
        }
        // A row for each batch and coordinate; what is picked is whole rows.
        let (named, rest) = (&shape[common..common + depth], &shape[common + depth..]);
        let (rows, inner): (usize, usize) = (named.iter().product(), rest.iter().product());
        let each: usize = places[common..].iter().product();
        let mut picked = Vec::with_capacity(wanted.data.len() / depth);
        for (i, coordinates) in wanted.data.chunks_exact(depth).enumerate() {
            let mut row = 0;
            for (at, extent) in coordinates.iter().zip(named) {
                let at = axis(*at, *extent).map_err(|_| Fault::shape(format!("index {coordinates:?} is outside {named:?}")))?;
                row = row * extent + at;
            }
            picked.push(i / each.max(1) * rows + row);
        }
        let mut out = places.to_vec();
        out.extend(rest);
        bounded(&out)?;
        Ok(vec![match x {
            Value::Host(host) => {
                bounded_on_host(&out)?;
                let data = picked.iter().flat_map(|row| &host.data[row * inner..][..inner]).copied().collect();
                Value::Host(Host::new(host.element, out, data))
            }
            Value::Float(_) if out.contains(&0) => Value::Float(floats::<B>(Vec::new(), &out)),
            Value::Float(x) => {
                let all = shape[..common].iter().product::<usize>() * rows;
                let count = picked.len();
                let picked: Vec<i64> = picked.into_iter().map(|row| row as i64).collect();
                let picked = B::int_from_data(BurnData::new(picked, [count]), &FlexDevice);
                Value::Float(reshape::<B>(B::float_select(reshape::<B>(x, &[all, inner]), 0, picked), &out))
            }
        }])
    }
}
