-- ARGV: worker, epoch, seq before the first event, then type, body and image of each event.
-- An event whose number was given already is skipped, so a repeated call changes nothing.
-- Returns {seq, 0 go on | 1 cancel | 2 the deadline has passed}; seq -1 when the job is no longer this worker's.
if not is_mine(ARGV[1], ARGV[2]) then
  return {-1, 0}
end
local seq = tonumber(ARGV[3])
local written = number('seq')
local rows = number('rows')
for i = 4, #ARGV, 3 do
  seq = seq + 1
  if seq > written then
    if ARGV[i] == 'preview' then
      append_preview(ARGV[i + 2], ARGV[i + 1])
    else
      append(ARGV[i], ARGV[i + 1])
    end
    if ARGV[i] == 'patches' or ARGV[i] == 'revised' then
      redis.call('HINCRBY', KEYS[1], 'done', rows)
    end
  end
end
return {number('seq'), order()}
