use crate::gguf::TensorType;

/// Bytes of a block, from the parts that ggml's block structs are made of.
#[test]
fn blocks_have_the_size_of_their_parts() {
    let half = 2;
    for (tensor_type, len, bytes) in [
        (TensorType::F32, 1, 4),
        (TensorType::F16, 1, 2),
        (TensorType::BF16, 1, 2),
        (TensorType::I8, 1, 1),
        (TensorType::I32, 1, 4),
        (TensorType::Q4_0, 32, half + 32 / 2),
        (TensorType::Q4_1, 32, 2 * half + 32 / 2),
        (TensorType::Q5_0, 32, half + 32 / 8 + 32 / 2),
        (TensorType::Q5_1, 32, 2 * half + 32 / 8 + 32 / 2),
        (TensorType::Q8_0, 32, half + 32),
        (TensorType::Q2K, 256, 2 * half + 256 / 16 + 256 / 4),
        (TensorType::Q3K, 256, half + 256 / 8 + 256 / 4 + 12),
        (TensorType::Q4K, 256, 2 * half + 12 + 256 / 2),
        (TensorType::Q5K, 256, 2 * half + 12 + 256 / 8 + 256 / 2),
        (TensorType::Q6K, 256, half + 256 / 16 + 256 * 3 / 4),
        (TensorType::IQ4NL, 32, half + 32 / 2),
    ] {
        assert_eq!(tensor_type.block_len(), len, "{tensor_type}");
        assert_eq!(tensor_type.block_bytes(), bytes, "{tensor_type}");
        assert_eq!(tensor_type.is_quantized(), len > 1, "{tensor_type}");
    }
}

#[test]
fn ids_and_names_lead_back_to_the_type() {
    for tensor_type in TensorType::ALL {
        assert_eq!(TensorType::from_id(tensor_type.id()), Some(tensor_type));
        let upper = tensor_type.name().to_uppercase();
        assert_eq!(tensor_type.to_string().parse(), Ok(tensor_type));
        assert_eq!(upper.parse(), Ok(tensor_type));
    }
    assert_eq!(TensorType::Q6K.id(), 14);
    assert_eq!("q6_k".parse(), Ok(TensorType::Q6K));
    assert_eq!(TensorType::Q6K.name(), "q6_K");
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    let error = "q9".parse::<TensorType>().unwrap_err().to_string();
    assert!(error.contains("\"q9\""), "{error}");
    for tensor_type in TensorType::ALL {
        assert!(error.contains(tensor_type.name()), "{error}");
    }
}

#[test]
fn rows_are_whole_blocks() {
    assert_eq!(TensorType::F32.row_bytes(3), Some(12));
    assert_eq!(TensorType::Q8_0.row_bytes(64), Some(68));
    assert_eq!(TensorType::Q8_0.row_bytes(63), None);
    assert_eq!(TensorType::Q6K.row_bytes(768), Some(630));
    assert_eq!(TensorType::Q6K.row_bytes(32), None);
    assert_eq!(TensorType::F32.row_bytes(u64::MAX), None);
    assert_eq!(TensorType::Q8_0.row_bytes(u64::MAX - 31), None);
}
