# cmake -DSOURCE=DIR -DHEADER=FILE -P commit.cmake: writes the header that says which commit is built, if that has changed.
execute_process(
  COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --match=
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${HEADER} CONTENT "#define XOS_COMMIT \"${commit}\"\n")
