//! LXMERT itself: its configuration, its tensors, what it computes, and a loaded file of it.
//!
//! `config` and `tensors` say what a file holds, `output` what can be asked for, `graph` what is computed in terms of the
//! few operations of `lower`, and `loaded` holds it all together as a [`Model`].

mod config;
mod graph;
mod loaded;
mod lower;
mod output;
mod tensors;

pub use config::{ARCHITECTURE, Config, Head, HiddenAct, LAYER_NORM_EPSILON, ObjectHead};
pub(crate) use graph::{Masked, Shape, Words, image_stage, node_limit, question_stage};
pub use loaded::{About, Model};
pub use output::Output;
pub use tensors::{CROSS_SIDES, Role, Tensor, tensors};
