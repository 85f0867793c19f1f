/* Programs that go into components: their shared libraries, found without running anything. What is
 * found is a file that is there. */
#include "fuzz.h"

#include "folder.h"
#include "oci/elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cleanup_value struct value libraries = {0};
    cleanup_free char *path = path_join(fuzz_folder(), "program");
    cleanup_free char *interpreter = NULL;
    struct error err = {0};

    value_set_map(&libraries);
    fuzz_file("program", data, size);
    int status = elf_libraries(path, &libraries, &interpreter, &err);
    check_result(status, &err);
    for (size_t i = 0; status == 0 && i < value_count(&libraries); i++) {
        const char *found = value_text(&libraries.as.map.pairs[i].value, "");
        check(access(found, F_OK) == 0);
    }
    return 0;
}
