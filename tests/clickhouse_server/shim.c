/* Stands between the engine's library and the C library, whose rename() and statvfs() it takes over: dies at the rename
   of a part, and has a full disk, as a page shared with the test says.
   byte 0: 1 = the disk is full; byte 1: 1 = die before the rename, 2 = after it; from byte 8: the table's UUID.
   Preloading would not do: the library is opened with RTLD_DEEPBIND. So its own table of imports is rewritten. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

static volatile char *page;

static int dying_rename(const char *from, const char *to)
{
    int mine = page[1] && strstr(from, "tmp_insert") && strstr(from, (const char *)page + 8);
    if (mine && page[1] == 1)
        kill(getpid(), SIGKILL);
    int done = rename(from, to);
    if (mine)
        kill(getpid(), SIGKILL);
    return done;
}

static int full_statvfs(const char *path, struct statvfs *found)
{
    int done = statvfs(path, found);
    if (page[0])
        found->f_bfree = found->f_bavail = 0;
    return done;
}

static int patched;

static void patch(uintptr_t base, ElfW(Rela) * entries, size_t bytes, ElfW(Sym) * symbols, const char *names)
{
    for (size_t n = 0; n < bytes / sizeof *entries; n++) {
        const char *name = names + symbols[ELF64_R_SYM(entries[n].r_info)].st_name;
        void *ours = !strcmp(name, "rename") ? (void *)dying_rename : !strcmp(name, "statvfs") ? (void *)full_statvfs : NULL;
        if (!ours)
            continue;
        uintptr_t place = base + entries[n].r_offset, size = (uintptr_t)sysconf(_SC_PAGESIZE);
        if (mprotect((void *)(place & ~(size - 1)), size, PROT_READ | PROT_WRITE) == 0) {
            *(void **)place = ours;
            patched++;
        }
    }
}

static int look(struct dl_phdr_info *info, size_t size, void *library)
{
    (void)size;
    if (!strstr(info->dlpi_name, library))
        return 0;
    for (int n = 0; n < info->dlpi_phnum; n++) {
        if (info->dlpi_phdr[n].p_type != PT_DYNAMIC)
            continue;
        ElfW(Rela) *plt = NULL, *others = NULL;
        ElfW(Sym) *symbols = NULL;
        const char *names = NULL;
        size_t plt_bytes = 0, other_bytes = 0;
        for (ElfW(Dyn) *entry = (void *)(info->dlpi_addr + info->dlpi_phdr[n].p_vaddr); entry->d_tag; entry++) {
            switch (entry->d_tag) {
            case DT_JMPREL: plt = (void *)entry->d_un.d_ptr; break;
            case DT_PLTRELSZ: plt_bytes = entry->d_un.d_val; break;
            case DT_RELA: others = (void *)entry->d_un.d_ptr; break;
            case DT_RELASZ: other_bytes = entry->d_un.d_val; break;
            case DT_SYMTAB: symbols = (void *)entry->d_un.d_ptr; break;
            case DT_STRTAB: names = (void *)entry->d_un.d_ptr; break;
            }
        }
        patch(info->dlpi_addr, plt, plt_bytes, symbols, names);
        patch(info->dlpi_addr, others, other_bytes, symbols, names);
    }
    return 1;
}

/* Returns how many imports were taken over; -1 when there is no page. */
int take_over(const char *path, const char *library)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    if (mapped == MAP_FAILED)
        return -1;
    page = mapped;
    dl_iterate_phdr(look, (void *)library);
    return patched;
}
