# cmake -DNM=nm -DLIBRARIES=a.a,b.a -P no_allocator.cmake
# The device's libraries may refer to no allocator, no exception, no guarded static and no thread. And no object of one
# instruction set may define a weak function: of several such definitions the linker keeps any one, which baseline code
# would then run on a processor without that instruction set.
string(REPLACE "," ";" libraries "${LIBRARIES}")
foreach(library ${libraries})
  execute_process(COMMAND ${NM} --undefined-only --format=posix ${library}
                  OUTPUT_VARIABLE symbols ERROR_QUIET RESULT_VARIABLE failed)
  if(failed OR NOT symbols)
    message(FATAL_ERROR "${NM} cannot read ${library}")
  endif()
  string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
  foreach(line ${lines})
    # new and delete are _Znw, _Zna, _Zdl and _Zda in C++'s mangling.
    if(line MATCHES "^(malloc|calloc|realloc|reallocarray|free|aligned_alloc|posix_memalign|memalign|strdup|_Zn[wa].*|_Zd[la].*|__cxa_(throw|rethrow|allocate_exception|guard_.*|atexit)|_Unwind_Resume|__gxx_personality_v0|_ZSt[0-9]+__throw.*|pthread_.*|__tls_get_addr|__emutls_get_address) ")
      message(SEND_ERROR "${library} refers to ${CMAKE_MATCH_1}")
    endif()
  endforeach()

  # nm names each member before its symbols; W is a weak function, V weak data.
  execute_process(COMMAND ${NM} --defined-only --format=posix ${library} OUTPUT_VARIABLE symbols)
  string(REGEX MATCHALL "[^\n]+" lines "${symbols}")
  set(member)
  foreach(line ${lines})
    if(line MATCHES "\\[(.*)\\]:$")
      set(member ${CMAKE_MATCH_1})
    elseif(member MATCHES "\\.simd\\." AND line MATCHES "^(.*) [Ww] ")
      message(SEND_ERROR "${member} of ${library} defines the weak function ${CMAKE_MATCH_1}")
    endif()
  endforeach()
endforeach()
