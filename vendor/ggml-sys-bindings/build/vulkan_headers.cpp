// Preprocessed by vulkan.rs, which reads from the result what is wrong with the headers.
#if !__has_include(<vulkan/vulkan.hpp>)
no_vulkan_headers
#else
#include <vulkan/vulkan_core.h>
// Debian 12's, the oldest that ggml was seen to compile with. The numbers went on counting in Vulkan 1.4.
#if VK_HEADER_VERSION < 239
old_vulkan_headers
#endif
#endif
#if !__has_include(<spirv/unified1/spirv.hpp>) && !__has_include(<spirv-headers/spirv.hpp>) && !__has_include(<spirv.hpp>)
no_spirv_headers
#endif
