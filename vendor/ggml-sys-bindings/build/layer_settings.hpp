// Included before ggml's code for Vulkan, which uses the types of VK_EXT_layer_settings even where it leaves that extension alone.
// Vulkan's headers have them from 1.3.272 on; for older ones they are here, laid out as the extension says.
#pragma once

#include <cstdint>
#include <vector>

#include <vulkan/vulkan_core.h>

#ifndef VK_EXT_layer_settings
namespace vk {

enum class LayerSettingTypeEXT { eBool32 = 0 };

struct LayerSettingEXT {
    const char * layer;
    const char * setting;
    LayerSettingTypeEXT type;
    uint32_t count;
    const void * values;
};

struct LayerSettingsCreateInfoEXT {
    explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> & list)
        : count(static_cast<uint32_t>(list.size())), settings(list.data()) {}

    VkStructureType type = static_cast<VkStructureType>(1000496000);
    const void * next = nullptr;
    uint32_t count;
    const LayerSettingEXT * settings;
};

} // namespace vk
#endif
