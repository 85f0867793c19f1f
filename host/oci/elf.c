#include "oci/elf.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define CACHE       "/etc/ld.so.cache"
#define CACHE_LIMIT (16u << 20)
#define CACHE_MAGIC "glibc-ld.so.cache1.1"

struct image { /* of a file */
    const unsigned char *data;
    size_t len;
};

static void image_close(struct image *image)
{
    if (image->data)
        munmap((void *)(uintptr_t)image->data, image->len);
}
#define cleanup_image __attribute__((cleanup(image_close)))

static int image_open(const char *path, struct image *out, struct error *err)
{
    struct stat st;
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(err, errno, "%s", path);
    if (st.st_size < (off_t)sizeof(ElfW(Ehdr)) || !S_ISREG(st.st_mode))
        return error_set(err, ERR_INVALID, "%s is no ELF file", path);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return error_errno(err, errno, "cannot map %s", path);
    *out = (struct image){data, (size_t)st.st_size};
    return 0;
}

static bool within(const struct image *image, uint64_t offset, uint64_t size)
{
    return offset <= image->len && size <= image->len - offset;
}

/* An ELF file of the machine that this code was compiled for. */
static const ElfW(Ehdr) * header_of(const struct image *image)
{
    const ElfW(Ehdr) *header = (const void *)image->data;
    static const unsigned char class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
#if defined(__x86_64__)
    static const unsigned machine = EM_X86_64;
#elif defined(__aarch64__)
    static const unsigned machine = EM_AARCH64;
#else
    const unsigned machine = header->e_machine;
#endif

    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != class ||
        header->e_machine != machine || header->e_phentsize != sizeof(ElfW(Phdr)) ||
        header->e_phoff % _Alignof(ElfW(Phdr)) != 0 ||
        !within(image, header->e_phoff, (uint64_t)header->e_phnum * sizeof(ElfW(Phdr))))
        return NULL;
    return header;
}

/* Where a virtual address is in the file; 0 when nowhere. */
static uint64_t file_offset(const struct image *image, const ElfW(Ehdr) * header, uint64_t address)
{
    const ElfW(Phdr) *segments = (const void *)(image->data + header->e_phoff);

    for (unsigned i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_LOAD && address >= segments[i].p_vaddr &&
            address - segments[i].p_vaddr < segments[i].p_filesz)
            return address - segments[i].p_vaddr + segments[i].p_offset;
    return 0;
}

static const char *text_at(const struct image *image, uint64_t offset)
{
    if (offset == 0 || offset >= image->len ||
        !memchr(image->data + offset, '\0', image->len - offset))
        return NULL;
    return (const char *)image->data + offset;
}

struct dynamic {
    struct value needed;
    char *search;
    char *interpreter;
};

static void dynamic_free(struct dynamic *dynamic)
{
    value_free(&dynamic->needed);
    free(dynamic->search);
    free(dynamic->interpreter);
}
#define cleanup_dynamic __attribute__((cleanup(dynamic_free)))

static int read_dynamic(const char *path, struct dynamic *out, struct error *err)
{
    cleanup_image struct image image = {0};

    value_set_array(&out->needed);
    if (image_open(path, &image, err) != 0)
        return -1;
    const ElfW(Ehdr) *header = header_of(&image);
    if (!header)
        return error_set(err, ERR_INVALID, "%s is no ELF file of this machine", path);
    const ElfW(Phdr) *segments = (const void *)(image.data + header->e_phoff);
    const ElfW(Dyn) *entries = NULL;
    size_t count = 0;
    for (unsigned i = 0; i < header->e_phnum; i++) {
        if (!within(&image, segments[i].p_offset, segments[i].p_filesz))
            continue;
        if (segments[i].p_type == PT_INTERP && !out->interpreter)
            out->interpreter = mem_strdup(text_at(&image, segments[i].p_offset));
        if (segments[i].p_type == PT_DYNAMIC && segments[i].p_offset % _Alignof(ElfW(Dyn)) == 0) {
            entries = (const void *)(image.data + segments[i].p_offset);
            count = segments[i].p_filesz / sizeof *entries;
        }
    }
    uint64_t strings = 0;
    for (size_t i = 0; i < count && entries[i].d_tag != DT_NULL; i++)
        if (entries[i].d_tag == DT_STRTAB)
            strings = file_offset(&image, header, entries[i].d_un.d_ptr);
    for (size_t i = 0; strings && i < count && entries[i].d_tag != DT_NULL; i++) {
        const char *text = text_at(&image, strings + entries[i].d_un.d_val);
        if (text && entries[i].d_tag == DT_NEEDED)
            value_push_string(&out->needed, text);
        if (text &&
            (entries[i].d_tag == DT_RUNPATH || (entries[i].d_tag == DT_RPATH && !out->search))) {
            free(out->search);
            out->search = mem_strdup(text);
        }
    }
    return 0;
}

static bool usable(const char *path)
{
    cleanup_image struct image image = {0};

    return access(path, R_OK) == 0 && image_open(path, &image, NULL) == 0 && header_of(&image);
}

/* "$ORIGIN/../lib:/opt/lib" */
static char *in_search_path(const char *search, const char *needing, const char *name)
{
    const char *slash = strrchr(needing, '/');

    for (const char *at = search ? search : ""; *at; at += *at == ':') {
        size_t len = strcspn(at, ":");
        cleanup_free char *folder = mem_strndup(at, len);
        const char *rest = strncmp(folder, "$ORIGIN", 7) == 0     ? folder + 7
                           : strncmp(folder, "${ORIGIN}", 9) == 0 ? folder + 9
                                                                  : NULL;
        char *path = rest ? mem_printf("%.*s%s/%s", slash ? (int)(slash - needing) : 1,
                                       slash ? needing : ".", rest, name)
                          : mem_printf("%s/%s", folder, name);
        if (usable(path))
            return path;
        free(path);
        at += len;
    }
    return NULL;
}

/* glibc's cache: a header, entries of 24 bytes (flags, key, value, osversion, hwcap), strings;
 * offsets count from the header. */
static char *in_cache(const char *name)
{
    cleanup_buf struct buf cache = BUF_INIT;
    uint32_t count, key, value;

    if (file_read(AT_FDCWD, CACHE, CACHE_LIMIT, &cache, NULL) != 0)
        return NULL;
    const char *start = memmem(cache.data, cache.len, CACHE_MAGIC, strlen(CACHE_MAGIC));
    if (!start)
        return NULL;
    size_t len = cache.len - (size_t)(start - cache.data);
    if (len < 48)
        return NULL;
    memcpy(&count, start + 20, sizeof count);
    for (uint32_t i = 0; i < count && 48 + (uint64_t)(i + 1) * 24 <= len; i++) {
        memcpy(&key, start + 48 + (size_t)i * 24 + 4, sizeof key);
        memcpy(&value, start + 48 + (size_t)i * 24 + 8, sizeof value);
        if (key >= len || value >= len || strcmp(start + key, name) != 0) /* buf ends with a NUL */
            continue;
        if (usable(start + value))
            return mem_strdup(start + value);
    }
    return NULL;
}

static char *in_default_folders(const char *name)
{
    static const char *const folders[] = {"/lib/x86_64-linux-gnu",
                                          "/usr/lib/x86_64-linux-gnu",
                                          "/lib/aarch64-linux-gnu",
                                          "/usr/lib/aarch64-linux-gnu",
                                          "/lib64",
                                          "/usr/lib64",
                                          "/lib",
                                          "/usr/lib",
                                          "/usr/local/lib"};

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *path = mem_printf("%s/%s", folders[i], name);
        if (usable(path))
            return path;
        free(path);
    }
    return NULL;
}

int elf_libraries(const char *path, struct value *libraries, char **interpreter, struct error *err)
{
    cleanup_dynamic struct dynamic dynamic = {0};

    if (read_dynamic(path, &dynamic, err) != 0)
        return -1;
    if (interpreter && dynamic.interpreter)
        *interpreter = steal_ptr(&dynamic.interpreter);
    for (size_t i = 0; i < value_count(&dynamic.needed); i++) {
        const char *name = value_text(value_at(&dynamic.needed, i), "");
        if (value_get(libraries, name))
            continue;
        char *found =
            strchr(name, '/') ? mem_strdup(name) : in_search_path(dynamic.search, path, name);
        if (!found)
            found = in_cache(name);
        if (!found)
            found = in_default_folders(name);
        if (!found) {
            error_set(err, ERR_NOT_FOUND, "%s needs %s, which is nowhere", path, name);
            return error_hint(err, "install the package that has it, then run ldconfig");
        }
        value_take_string(value_put(libraries, name), found);
        if (elf_libraries(found, libraries, NULL, err) != 0)
            return -1;
    }
    return 0;
}
