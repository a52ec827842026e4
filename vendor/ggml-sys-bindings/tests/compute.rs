//! ggml computes, from memory that the caller owns, what a plain loop computes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::null_mut;

use ggml_sys_bindings::*;

const ALIGN: usize = 64;

/// Weights `[ROWS, COLUMNS]` times activations `[BATCH, COLUMNS]`. ROWS and BATCH are odd on
/// purpose, COLUMNS is two blocks of q8_0.
const COLUMNS: usize = 64;
const ROWS: usize = 7;
const BATCH: usize = 3;

/// Zeroed memory, aligned for the widest vector instructions.
struct Buffer {
    data: *mut u8,
    layout: Layout,
}

impl Buffer {
    fn new(size: usize) -> Self {
        let layout = Layout::from_size_align(size.max(1), ALIGN).expect("the size is small");
        // SAFETY: the layout's size is not zero.
        let data = unsafe { alloc_zeroed(layout) };
        if data.is_null() {
            handle_alloc_error(layout);
        }
        Self { data, layout }
    }

    fn holds(&self, pointer: *const u8) -> bool {
        let start = self.data.addr();
        (start..start + self.layout.size()).contains(&pointer.addr())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: `new` allocated this with this layout.
        unsafe { dealloc(self.data, self.layout) }
    }
}

/// Small values of both signs with no pattern that a transposed matrix would share.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn expected(weights: &[f32], activations: &[f32]) -> Vec<f32> {
    let rows = || weights.chunks(COLUMNS);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    activations.chunks(COLUMNS).flat_map(|x| rows().map(move |row| dot(row, x))).collect()
}

/// The product by ggml, with the weights in a type of ggml's.
fn computed(kind: ggml_type, weights: &[f32], activations: &[f32], threads: i32) -> Vec<f32> {
    let memory = Buffer::new(1 << 20);
    let params =
        ggml_init_params { mem_size: memory.layout.size(), mem_buffer: memory.data.cast(), no_alloc: false };
    // SAFETY: the context is used in this function only, which `memory` outlives. It has room
    // for three small tensors and a graph, and so every constructor returns a valid pointer.
    // The vectors have the sizes that the tensors are made with, and the work buffer the size
    // that the plan asks for.
    unsafe {
        let context = ggml_init(params);
        assert!(!context.is_null());
        let w = ggml_new_tensor_2d(context, kind, COLUMNS as i64, ROWS as i64);
        let x = ggml_new_tensor_2d(context, ggml_type::GGML_TYPE_F32, COLUMNS as i64, BATCH as i64);
        let product = ggml_mul_mat(context, w, x);
        assert!(memory.holds((*w).data.cast()) && memory.holds((*product).data.cast()));
        assert_eq!((*product).ne, [ROWS as i64, BATCH as i64, 1, 1]);

        let written = ggml_quantize_chunk(
            kind,
            weights.as_ptr(),
            (*w).data,
            0,
            ROWS as i64,
            COLUMNS as i64,
            std::ptr::null(),
        );
        assert_eq!(written, ggml_nbytes(w));
        std::ptr::copy_nonoverlapping(activations.as_ptr(), (*x).data.cast(), activations.len());

        let graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, product);
        let mut plan = ggml_graph_plan(graph, threads, null_mut());
        let work = Buffer::new(plan.work_size);
        plan.work_data = work.data;
        assert_eq!(ggml_graph_compute(graph, &mut plan), ggml_status::GGML_STATUS_SUCCESS);

        let result = std::slice::from_raw_parts((*product).data.cast::<f32>(), ROWS * BATCH).to_vec();
        ggml_free(context);
        result
    }
}

#[track_caller]
fn assert_product(kind: ggml_type, tolerance: f32) {
    let weights = values(ROWS * COLUMNS, 1);
    let activations = values(BATCH * COLUMNS, 2);
    let expected = expected(&weights, &activations);
    for threads in [1, 2] {
        let computed = computed(kind, &weights, &activations, threads);
        for (index, (computed, expected)) in computed.iter().zip(&expected).enumerate() {
            assert!(
                (computed - expected).abs() <= tolerance,
                "{kind:?}, {threads} threads, element {index}: {computed}, expected {expected}"
            );
        }
    }
}

#[test]
fn multiplies_f32_matrices() {
    assert_product(ggml_type::GGML_TYPE_F32, 1e-5);
}

/// Both sides are rounded to steps of 1/127 of the largest value, below 1 here: an element errs
/// by at most 2/254 in each of 64 products, and far less in their sum, as the signs vary.
#[test]
fn multiplies_q8_0_matrices() {
    assert_product(ggml_type::GGML_TYPE_Q8_0, 0.06);
}

#[test]
fn is_the_version_of_the_bindings() {
    // SAFETY: ggml returns a constant string.
    let version = unsafe { std::ffi::CStr::from_ptr(ggml_version()) };
    assert_eq!(version, c"0.26.0");
}

/// A type's number that has no name is an ordinary value.
#[test]
fn enums_hold_numbers_without_a_name() {
    let unknown = ggml_type(9999);
    assert_ne!(unknown, ggml_type::GGML_TYPE_F32);
    assert_eq!(std::mem::size_of_val(&unknown), 4);
}
