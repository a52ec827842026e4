//! ggml computes, from memory that the caller owns and on devices with their own, what a plain loop computes.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::CStr;
use std::ptr::{null, null_mut};

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

        let written =
            ggml_quantize_chunk(kind, weights.as_ptr(), (*w).data, 0, ROWS as i64, COLUMNS as i64, null());
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

/// The same by a device, which gets the weights and gives the product back.
fn computed_on(
    device: ggml_backend_dev_t,
    kind: ggml_type,
    weights: &[f32],
    activations: &[f32],
) -> Vec<f32> {
    let params = ggml_init_params { mem_size: 1 << 20, mem_buffer: null_mut(), no_alloc: true };
    // SAFETY: the context has room for three small tensors and a graph. The tensors lie in one buffer of the device's, which lives as
    // long as they are used, and what is copied has their sizes.
    unsafe {
        let backend = ggml_backend_dev_init(device, null());
        assert!(!backend.is_null());
        let context = ggml_init(params);
        let w = ggml_new_tensor_2d(context, kind, COLUMNS as i64, ROWS as i64);
        let x = ggml_new_tensor_2d(context, ggml_type::GGML_TYPE_F32, COLUMNS as i64, BATCH as i64);
        let product = ggml_mul_mat(context, w, x);
        assert!(ggml_backend_supports_op(backend, product));
        let buffer = ggml_backend_alloc_ctx_tensors(context, backend);
        assert!(!buffer.is_null());

        let mut quantized = vec![0u8; ggml_nbytes(w)];
        let (rows, columns) = (ROWS as i64, COLUMNS as i64);
        ggml_quantize_chunk(kind, weights.as_ptr(), quantized.as_mut_ptr().cast(), 0, rows, columns, null());
        ggml_backend_tensor_set(w, quantized.as_ptr().cast(), 0, quantized.len());
        ggml_backend_tensor_set(x, activations.as_ptr().cast(), 0, size_of_val(activations));

        let graph = ggml_new_graph(context);
        ggml_build_forward_expand(graph, product);
        assert_eq!(ggml_backend_graph_compute(backend, graph), ggml_status::GGML_STATUS_SUCCESS);
        let mut result = vec![0f32; ROWS * BATCH];
        ggml_backend_tensor_get(product, result.as_mut_ptr().cast(), 0, size_of_val(&result[..]));

        ggml_backend_buffer_free(buffer);
        ggml_free(context);
        ggml_backend_free(backend);
        result
    }
}

/// A product by each of the given ways must be that of a plain loop.
#[track_caller]
fn assert_product<W: std::fmt::Debug + Copy>(
    kind: ggml_type,
    tolerance: f32,
    ways: &[W],
    computed: impl Fn(W, &[f32], &[f32]) -> Vec<f32>,
) {
    let weights = values(ROWS * COLUMNS, 1);
    let activations = values(BATCH * COLUMNS, 2);
    let expected = expected(&weights, &activations);
    for &way in ways {
        let computed = computed(way, &weights, &activations);
        assert_eq!(computed.len(), expected.len());
        for (index, (computed, expected)) in computed.iter().zip(&expected).enumerate() {
            assert!(
                (computed - expected).abs() <= tolerance,
                "{kind:?}, {way:?}, element {index}: {computed}, expected {expected}"
            );
        }
    }
}

#[track_caller]
fn assert_product_on_cpu(kind: ggml_type, tolerance: f32) {
    assert_product(kind, tolerance, &[1, 2], |threads, weights, activations| {
        computed(kind, weights, activations, threads)
    });
}

#[test]
fn multiplies_f32_matrices() {
    assert_product_on_cpu(ggml_type::GGML_TYPE_F32, 1e-5);
}

/// Both sides are rounded to steps of 1/127 of the largest value, below 1 here: an element errs
/// by at most 2/254 in each of 64 products, and far less in their sum, as the signs vary.
#[test]
fn multiplies_q8_0_matrices() {
    assert_product_on_cpu(ggml_type::GGML_TYPE_Q8_0, 0.06);
}

/// On every GPU there is, or what a driver passes for one: `GGML_VK_VISIBLE_DEVICES=0` lets Mesa's compute on the CPU. Products of
/// floats may be of half their precision there, which 64 of them still keep far below the tolerance.
#[test]
fn multiplies_matrices_on_devices() {
    // SAFETY: the devices and their names are constants of the process.
    let devices: Vec<_> = unsafe {
        let devices = (0..ggml_backend_dev_count()).map(|index| ggml_backend_dev_get(index));
        devices
            .filter(|&device| {
                ggml_backend_dev_type(device) != ggml_backend_dev_type::GGML_BACKEND_DEVICE_TYPE_CPU
            })
            .collect()
    };
    if devices.is_empty() {
        println!("skipped: the backends ({BACKENDS}) find no device beside the CPU");
    }
    for device in devices {
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(ggml_backend_dev_description(device)) };
        println!("on {name:?}");
        for (kind, tolerance) in [(ggml_type::GGML_TYPE_F32, 0.02), (ggml_type::GGML_TYPE_Q8_0, 0.06)] {
            assert_product(kind, tolerance, &[device], |device, weights, activations| {
                computed_on(device, kind, weights, activations)
            });
        }
    }
}

/// What the build script says is compiled in is what ggml finds. It drops Vulkan where the system has no driver at all.
#[test]
fn has_the_backends_that_it_names() {
    let named: Vec<&str> = BACKENDS.split(", ").filter_map(|backend| backend.split(' ').next()).collect();
    // SAFETY: the list and the names in it are constants of the process.
    let found: Vec<String> = unsafe {
        (0..ggml_backend_reg_count())
            .map(|index| CStr::from_ptr(ggml_backend_reg_name(ggml_backend_reg_get(index))))
            .map(|name| name.to_string_lossy().to_lowercase().replace("mtl", "metal"))
            .collect()
    };
    assert!(found.iter().all(|name| named.contains(&name.as_str())), "{found:?}, but {named:?} are named");
    let missing: Vec<_> = named.iter().filter(|name| !found.iter().any(|found| found == *name)).collect();
    assert!(missing.is_empty() || missing == [&"vulkan"], "{missing:?} are named, but only {found:?} there");
}

#[test]
fn is_the_version_of_the_bindings() {
    // SAFETY: ggml returns a constant string.
    let version = unsafe { CStr::from_ptr(ggml_version()) };
    assert_eq!(version, c"0.26.0");
}

/// A type's number that has no name is an ordinary value.
#[test]
fn enums_hold_numbers_without_a_name() {
    let unknown = ggml_type(9999);
    assert_ne!(unknown, ggml_type::GGML_TYPE_F32);
    assert_eq!(std::mem::size_of_val(&unknown), 4);
}
