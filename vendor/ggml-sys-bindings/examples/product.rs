//! Computes a matrix product by ggml, as often as it is told: something to count instructions of.
//!
//! `product TYPE COLUMNS OUTPUTS ROWS TIMES [repacked]` multiplies ROWS rows of COLUMNS numbers with a matrix of OUTPUTS rows, on
//! one thread. `repacked` puts the matrix where ggml rearranges matrices for the CPU's instructions, as a program does that
//! allocates its weights by ggml's backends; without the word it lies as in a file.

use std::error::Error;
use std::ffi::CStr;
use std::process::ExitCode;
use std::ptr::null_mut;

use ggml_sys_bindings::*;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (sizes, repacked) = match &arguments[..] {
        [kind, sizes @ ..] if sizes.len() == 4 => ((kind, sizes), false),
        [kind, sizes @ .., last] if sizes.len() == 4 && last == "repacked" => ((kind, sizes), true),
        _ => return Err("give TYPE COLUMNS OUTPUTS ROWS TIMES, and repacked or nothing".into()),
    };
    let kind = match sizes.0.as_str() {
        "f32" => ggml_type::GGML_TYPE_F32,
        "bf16" => ggml_type::GGML_TYPE_BF16,
        "q4_0" => ggml_type::GGML_TYPE_Q4_0,
        "q8_0" => ggml_type::GGML_TYPE_Q8_0,
        other => return Err(format!("{other} is none of f32, bf16, q4_0, q8_0").into()),
    };
    let number = |index: usize| sizes.1[index].parse::<u16>().map_err(|_| "sizes are numbers up to 65535");
    let (columns, outputs, rows, times) = (number(0)?, number(1)?, number(2)?, number(3)?);
    if columns == 0 || columns % 32 != 0 || outputs == 0 || rows == 0 {
        return Err("COLUMNS must be a multiple of 32, and no size 0".into());
    }
    product(kind, [columns, outputs, rows].map(i64::from), times, repacked)
}

fn product(
    kind: ggml_type,
    [columns, outputs, rows]: [i64; 3],
    times: u16,
    repacked: bool,
) -> Result<(), Box<dyn Error>> {
    let params = ggml_init_params { mem_size: 1 << 20, mem_buffer: null_mut(), no_alloc: true };
    // SAFETY: each context has room for a few tensors and a graph, and each tensor gets a buffer of its own size before it is used.
    // The process ends when this function does, so nothing is freed.
    unsafe {
        let (weights, others) = (ggml_init(params), ggml_init(params));
        let matrix = ggml_new_tensor_2d(weights, kind, columns, outputs);
        let x = ggml_new_tensor_2d(others, ggml_type::GGML_TYPE_F32, columns, rows);
        let y = ggml_mul_mat(others, matrix, x);
        let graph = ggml_new_graph(others);
        ggml_build_forward_expand(graph, y);

        let backend = ggml_backend_cpu_init();
        let place = match repacked {
            true => repacking().ok_or("ggml rearranges nothing in this build")?,
            false => ggml_backend_cpu_buffer_type(),
        };
        let buffers = [
            ggml_backend_alloc_ctx_tensors_from_buft(weights, place),
            ggml_backend_alloc_ctx_tensors_from_buft(others, ggml_backend_cpu_buffer_type()),
        ];
        if buffers.contains(&null_mut()) {
            return Err("out of memory".into());
        }
        if repacked && (*matrix).extra.is_null() {
            return Err("ggml does not rearrange such a matrix on this CPU".into());
        }
        let zeros = vec![0u8; ggml_nbytes(matrix)];
        ggml_backend_tensor_set(matrix, zeros.as_ptr().cast(), 0, zeros.len());
        ggml_backend_tensor_memset(x, 0, 0, ggml_nbytes(x));
        ggml_backend_cpu_set_n_threads(backend, 1);
        for _ in 0..times {
            if ggml_backend_graph_compute(backend, graph) != ggml_status::GGML_STATUS_SUCCESS {
                return Err("ggml failed".into());
            }
        }
    }
    Ok(())
}

/// Where ggml puts matrices that it rearranges.
fn repacking() -> Option<ggml_backend_buffer_type_t> {
    type GetPlaces = unsafe extern "C" fn(ggml_backend_dev_t) -> *mut ggml_backend_buffer_type_t;
    // SAFETY: under this name the CPU's backend has a function of this type, whose list ends with a null pointer.
    unsafe {
        let cpu = ggml_backend_reg_by_name(c"CPU".as_ptr());
        let get = ggml_backend_reg_get_proc_address(cpu, c"ggml_backend_dev_get_extra_bufts".as_ptr());
        if get.is_null() {
            return None;
        }
        let get: GetPlaces = std::mem::transmute(get);
        let mut places = get(ggml_backend_reg_dev_get(cpu, 0));
        while !(*places).is_null() {
            if CStr::from_ptr(ggml_backend_buft_name(*places)) == c"CPU_REPACK" {
                return Some(*places);
            }
            places = places.add(1);
        }
    }
    None
}
