/* Prints the size of each struct that other languages declare for themselves, and where its fields are. */

#include <lxmert.h>
#include <stddef.h>
#include <stdio.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(type))
#define FIELD(type, field) printf(#type "." #field " %zu\n", offsetof(type, field))

int main(void)
{
    SIZE(lxmert_model_info);
    FIELD(lxmert_model_info, struct_size);
    FIELD(lxmert_model_info, head);
    FIELD(lxmert_model_info, front_end);
    FIELD(lxmert_model_info, label_count);
    FIELD(lxmert_model_info, has_label_texts);
    FIELD(lxmert_model_info, has_tokenizer);
    FIELD(lxmert_model_info, images_per_answer);
    FIELD(lxmert_model_info, hidden_size);
    FIELD(lxmert_model_info, vocab_size);
    FIELD(lxmert_model_info, max_tokens);
    FIELD(lxmert_model_info, max_regions);
    FIELD(lxmert_model_info, max_batch);
    FIELD(lxmert_model_info, feature_size);
    FIELD(lxmert_model_info, box_size);
    FIELD(lxmert_model_info, grid_rows);
    FIELD(lxmert_model_info, grid_columns);
    FIELD(lxmert_model_info, parameters);
    FIELD(lxmert_model_info, file_bytes);

    SIZE(lxmert_session_options);
    FIELD(lxmert_session_options, struct_size);
    FIELD(lxmert_session_options, max_tokens);
    FIELD(lxmert_session_options, max_regions);
    FIELD(lxmert_session_options, max_batch);
    FIELD(lxmert_session_options, threads);
    FIELD(lxmert_session_options, cpus);
    FIELD(lxmert_session_options, cpu_count);
    FIELD(lxmert_session_options, lowering);
    FIELD(lxmert_session_options, outputs);
    FIELD(lxmert_session_options, output_count);
    FIELD(lxmert_session_options, inputs_embeds);
    FIELD(lxmert_session_options, memory_budget);
    FIELD(lxmert_session_options, residency);
    FIELD(lxmert_session_options, lock_memory);
    FIELD(lxmert_session_options, prefault);
    FIELD(lxmert_session_options, profile);
    FIELD(lxmert_session_options, allocator);
    FIELD(lxmert_session_options, memory);
    FIELD(lxmert_session_options, memory_size);
    FIELD(lxmert_session_options, abort);
    FIELD(lxmert_session_options, abort_user_data);
    FIELD(lxmert_session_options, progress);
    FIELD(lxmert_session_options, progress_user_data);
    FIELD(lxmert_session_options, device);

    SIZE(lxmert_memory_plan);
    FIELD(lxmert_memory_plan, struct_size);
    FIELD(lxmert_memory_plan, residency);
    FIELD(lxmert_memory_plan, lowering);
    FIELD(lxmert_memory_plan, device);
    FIELD(lxmert_memory_plan, device_bytes);
    FIELD(lxmert_memory_plan, weights_mapped);
    FIELD(lxmert_memory_plan, weights_private);
    FIELD(lxmert_memory_plan, session);
    FIELD(lxmert_memory_plan, tokenizer);
    FIELD(lxmert_memory_plan, labels);
    FIELD(lxmert_memory_plan, other);
    FIELD(lxmert_memory_plan, total);

    SIZE(lxmert_session_info);
    FIELD(lxmert_session_info, struct_size);
    FIELD(lxmert_session_info, residency);
    FIELD(lxmert_session_info, lowering);
    FIELD(lxmert_session_info, device);
    FIELD(lxmert_session_info, max_tokens);
    FIELD(lxmert_session_info, max_regions);
    FIELD(lxmert_session_info, max_batch);
    FIELD(lxmert_session_info, threads);
    FIELD(lxmert_session_info, session_bytes);
    FIELD(lxmert_session_info, label_count);

    SIZE(lxmert_answer);
    FIELD(lxmert_answer, label);
    FIELD(lxmert_answer, text);
    FIELD(lxmert_answer, logit);
    FIELD(lxmert_answer, softmax);
    FIELD(lxmert_answer, sigmoid);

    SIZE(lxmert_tensor);
    FIELD(lxmert_tensor, struct_size);
    FIELD(lxmert_tensor, data);
    FIELD(lxmert_tensor, rank);
    FIELD(lxmert_tensor, shape);
    return 0;
}
