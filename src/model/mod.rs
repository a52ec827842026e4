//! LXMERT itself: its configuration, its tensors, what it computes, and a loaded file of it.
//!
//! `config` and `tensors` say what a file holds, `output` what can be asked for, and `graph` what is computed in terms of the
//! few `operations`. These are lowered in two ways: `stock` to ggml's, `fused` to the kernels of this project. `packing` says which
//! matrices of a file are in the kernels' order already. `loaded` holds it all together as a [`Model`], and `weights` hands its
//! weights out.

mod config;
mod fused;
mod graph;
mod loaded;
mod operations;
mod output;
mod packing;
mod stock;
mod tensors;
mod weights;

pub use config::{ARCHITECTURE, Config, Head, HiddenAct, LAYER_NORM_EPSILON, ObjectHead};
pub(crate) use fused::FusedModel;
pub(crate) use graph::Shape;
pub use loaded::{About, Model, ModelOptions};
pub use output::{Dims, Output};
#[doc(hidden)] // for the programs of this repository
pub use packing::{Packer, Packing};
pub(crate) use stock::{Masked, WordKind, Words, image_stage, node_limit, question_stage};
pub use tensors::{CROSS_SIDES, Role, Tensor, tensors};

/// Elements of a matrix whose f32 form still fits the second-level cache of a small core. Quantized matrices of up to this
/// size are multiplied in f32: the fewer terms there are to average over, the more accuracy rounded factors would
/// cost, and the less time they would save.
const SMALL_MATRIX: usize = 1 << 16;
